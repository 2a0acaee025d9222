"""Generation: greedy and beam search for text models, with or without deltas.

`settings.py` validates the decoding settings. `search.py` is the loop that greedy and beam search
share. `hypotheses.py` implements the two sets of beam-search rules. `decoder.py`, `cache.py` and
`attention.py` run the model's own decoder for all beams of a source at once: `encoder_decoder.py`
that of BART, mBART and T5, `causal.py` decoder-only models, `uncached.py` models that have to be
recomputed at every step. `static_step.py` and
`static_cache.py` do so with static shapes. `onednn.py` speeds up matrix
products on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unipeft_run.config.schema import DecodingConfig, Rules
from unipeft_run.evaluation.generation.beam_search import BeamSearch
from unipeft_run.evaluation.generation.causal import CausalDecoder, Prompts
from unipeft_run.evaluation.generation.decoder import Decoder
from unipeft_run.evaluation.generation.encoder_decoder import EncoderDecoder, encode
from unipeft_run.evaluation.generation.fallback import (
    find_obstacle,
    generate_with_transformers,
    is_recomputed,
)
from unipeft_run.evaluation.generation.greedy import GreedySearch
from unipeft_run.evaluation.generation.settings import Settings
from unipeft_run.evaluation.generation.static_step import (
    StaticDecoder,
    StepGraphs,
    can_record,
)
from unipeft_run.evaluation.generation.uncached import UncachedCausal, UncachedEncoderDecoder

__all__ = ["StepGraphs", "can_generate", "can_record", "describe", "encode", "generate"]


def can_generate(model: Any) -> bool:
    """Return whether `generate` supports this model itself, without transformers' `generate`."""
    return find_obstacle(model) is None


def describe(model: Any, decoding: DecodingConfig) -> str:
    """Return the signature of a decoding, with the rules that `generate` follows for this model."""
    settings = decoding.model_dump(exclude_none=True)
    if not can_generate(model):
        settings["rules"] = "transformers"
    if is_recomputed(model):
        settings["cache"] = False
    if not model.config.is_encoder_decoder and decoding.max_new_tokens and decoding.min_length:
        settings["min_new_tokens"] = settings.pop("min_length")
    return "|".join(f"{name}:{value}" for name, value in settings.items())


@torch.no_grad()
def generate(
    model: Any,
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    decoding: Mapping[str, Any],
    rules: Rules = "2021",
    encoder_states: Tensor | None = None,
    graphs: StepGraphs | None = None,
) -> Tensor:
    """Generate a target for each source; return token ids, [B, T].

    Rows of an encoder-decoder model start with the decoder start token; those of a decoder-only
    model start with the prompt, with all of its padding moved to the left. Rows are padded on the
    right. Nothing is taken from `model.generation_config`.

    The length of a decoder-only model's row includes the prompt and its padding, in `max_length`
    and `min_length` under both sets of rules, and in the length penalty under the rules of 2021
    (transformers' count generated tokens only). `max_new_tokens` counts generated tokens; with it,
    so does `min_length` of a decoder-only model, as transformers' `min_new_tokens`. No n-gram of
    prompt and target together occurs twice under `no_repeat_ngram_size`. All of this follows
    transformers: version 4.6 under the rules of 2021, version 5.23 otherwise.

    For a model or an attention implementation that this search does not support, transformers'
    `generate` is called instead, which is logged. A model with a delta that depends on later
    positions, such as UniPELT's gates, is recomputed at every step, without a cache.

    Args:
        model: an encoder-decoder or decoder-only model, with or without deltas.
        input_ids: the sources or prompts, [B, S], padded on either side.
        attention_mask: 1 for tokens, 0 for padding, [B, S].
        decoding: keys of `evaluation.decoding`, and optionally `decoder_start_token_id`,
            `forced_bos_token_id`, `forced_eos_token_id`, `eos_token_id`, `pad_token_id` and
            `bos_token_id`, which default to the model's config. End tokens may be a list, of which
            any ends a target. Without `pad_token_id`, rows are padded with the first of them.
        rules: `2021` for the beam search that the paper ran, `transformers` for today's. The key
            `rules` in `decoding` takes precedence.
        encoder_states: the encoder's output for these sources, if already computed.
        graphs: an open `StepGraphs(model)`: decoder steps have static shapes, and on a GPU they are
            recorded as CUDA graphs, which later calls reuse. BART and mBART only.

    Raises:
        ValueError: for an unknown key, a missing key or a value out of range, for prompts without
            tokens or without room for another one, and for `graphs` with another model.
    """
    if not model.config.is_encoder_decoder:
        prompts = Prompts.align(input_ids, attention_mask)
        input_ids, attention_mask = prompts.tokens, prompts.mask
    width = None if model.config.is_encoder_decoder else input_ids.size(1)
    settings = Settings.read(decoding, model.config, rules, width)
    if obstacle := find_obstacle(model):
        return generate_with_transformers(model, input_ids, attention_mask, settings, obstacle)
    decoder = _build_decoder(model, input_ids, attention_mask, settings, encoder_states, graphs)
    search = GreedySearch if settings.num_beams == 1 else BeamSearch
    with decoder:
        return search(decoder, settings).run().to(input_ids.dtype)


def _build_decoder(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    settings: Settings,
    states: Tensor | None,
    graphs: StepGraphs | None,
) -> Decoder:
    recomputed = is_recomputed(model)
    if not model.config.is_encoder_decoder:
        if graphs is not None or states is not None:
            raise ValueError("graphs and encoder_states are for encoder-decoder models")
        prompts = Prompts(input_ids, attention_mask)
        return (UncachedCausal if recomputed else CausalDecoder)(model, prompts, settings)
    if states is None:
        states = encode(model, input_ids, attention_mask)
    if recomputed:
        return UncachedEncoderDecoder(model, states, attention_mask, settings)
    if graphs is not None:
        if graphs.model is not model:
            raise ValueError("graphs: these belong to another model")
        return StaticDecoder(model, states, attention_mask, settings, graphs)
    return EncoderDecoder(model, states, attention_mask, settings)
