"""Generation: greedy and beam search for BART and mBART, with or without deltas.

`settings.py` validates the decoding settings. `search.py` is the loop that greedy and beam search
share. `hypotheses.py` implements the two sets of beam-search rules. `decoder.py`, `cache.py` and
`attention.py` run the model's own decoder for all beams of a source at once; `static_step.py` does
so with static shapes. `onednn.py` speeds up matrix products on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unipeft_run.config.schema import Rules
from unipeft_run.evaluation.generation.beam_search import BeamSearch
from unipeft_run.evaluation.generation.decoder import Decoder, encode
from unipeft_run.evaluation.generation.fallback import find_obstacle, generate_with_transformers
from unipeft_run.evaluation.generation.greedy import GreedySearch
from unipeft_run.evaluation.generation.settings import Settings
from unipeft_run.evaluation.generation.static_step import StaticDecoder

__all__ = ["can_generate", "encode", "generate"]


def can_generate(model: Any) -> bool:
    """Return whether `generate` supports this model itself, without transformers' `generate`."""
    return find_obstacle(model) is None


@torch.no_grad()
def generate(
    model: Any,
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    decoding: Mapping[str, Any],
    rules: Rules = "2021",
    encoder_states: Tensor | None = None,
    static: bool = False,
) -> Tensor:
    """Generate a target for each source; return token ids, [B, T].

    Rows start with the decoder start token and are padded on the right. Nothing is taken from
    `model.generation_config`. For a model or an attention implementation that this search does not
    support, transformers' `generate` is called instead, which is logged.

    Args:
        model: BART or mBART, with or without deltas.
        input_ids: the sources, [B, S], padded on either side.
        attention_mask: 1 for tokens, 0 for padding, [B, S].
        decoding: keys of `evaluation.decoding`, and optionally `decoder_start_token_id`,
            `forced_bos_token_id`, `forced_eos_token_id`, `eos_token_id`, `pad_token_id` and
            `bos_token_id`, which default to the model's config.
        rules: `2021` for the beam search that the paper ran, `transformers` for today's. The key
            `rules` in `decoding` takes precedence.
        encoder_states: the encoder's output for these sources, if already computed.
        static: run decoder steps with static shapes, on a GPU as a CUDA graph.

    Raises:
        ValueError: for an unknown key, a missing key or a value out of range.
    """
    settings = Settings.read(decoding, model.config, rules)
    if obstacle := find_obstacle(model):
        return generate_with_transformers(model, input_ids, attention_mask, settings, obstacle)
    if encoder_states is None:
        encoder_states = encode(model, input_ids, attention_mask)
    search = GreedySearch if settings.num_beams == 1 else BeamSearch
    decoder_type = StaticDecoder if static else Decoder
    with decoder_type(model, encoder_states, attention_mask, settings) as decoder:
        return search(decoder, settings).run().to(input_ids.dtype)
