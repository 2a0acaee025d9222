"""Run the whole model again at every step, for deltas whose output depends on later positions.

UniPELT's gates are means over all positions of a pass. With a cache they would be means over the
newest tokens only, so cached and uncached generation differ; the published outputs are uncached.

Shape legend: B sources, K beams, n tokens so far, S source positions, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from unipeft_run.deltas.attention import IMPLEMENTATIONS as ATTACHED
from unipeft_run.evaluation.generation.causal import Prompts
from unipeft_run.evaluation.generation.decoder import Decoder, use_attention
from unipeft_run.evaluation.generation.encoder_decoder import start_tokens
from unipeft_run.evaluation.generation.settings import Settings


class UncachedDecoder(Decoder):
    """A decoder without a cache; `run` returns logits after the tokens of every beam."""

    def __enter__(self) -> Self:
        # not transformers' eager attention, whose softmax of padding is NaN in float64
        self.contexts.enter_context(use_attention(self.model, ATTACHED))
        return self

    def __call__(self, seen: Tensor, visible: Tensor) -> Tensor:
        del visible
        logits = self.run(seen.flatten(0, 1), seen.size(1))[:, -1]
        return logits.view(*seen.shape[:2], -1)

    def run(self, tokens: Tensor, beams: int) -> Tensor:
        """Return logits [B K, n, V] of the rows `tokens` [B K, n]."""
        raise NotImplementedError

    def step(self, tokens: Tensor, visible: Tensor) -> Tensor:
        raise NotImplementedError("there is no cache")


class UncachedEncoderDecoder(UncachedDecoder):
    """An encoder-decoder model; the encoder runs once, the decoder is recomputed."""

    def __init__(
        self, model: Any, states: Tensor, attention_mask: Tensor, settings: Settings
    ) -> None:
        super().__init__(model, start_tokens(states, settings), settings, states.dtype)
        self.states, self.mask = states, attention_mask

    def run(self, tokens: Tensor, beams: int) -> Tensor:
        logits = self.model(
            encoder_outputs=(self.states.repeat_interleave(beams, dim=0),),
            attention_mask=self.mask.repeat_interleave(beams, dim=0),
            decoder_input_ids=tokens,
            use_cache=False,
        ).logits
        assert isinstance(logits, Tensor)
        return logits

    def keep(self, rows: Tensor) -> None:
        self.states, self.mask = self.states[rows], self.mask[rows]


class UncachedCausal(UncachedDecoder):
    """A decoder-only model; prompt and target are recomputed."""

    def __init__(self, model: Any, prompts: Prompts, settings: Settings) -> None:
        dtype = model.get_input_embeddings().weight.dtype
        super().__init__(model, prompts.tokens, settings, dtype)
        self.mask = prompts.mask

    def run(self, tokens: Tensor, beams: int) -> Tensor:
        shown = self.mask.repeat_interleave(beams, dim=0)
        new = shown.new_ones(len(tokens), tokens.size(1) - shown.size(1))
        rows = Prompts(tokens, torch.cat([shown, new], dim=1))
        logits = self.model(
            input_ids=rows.tokens,
            attention_mask=rows.mask,
            position_ids=rows.find_positions(),
            use_cache=False,
            logits_to_keep=1,
        ).logits
        assert isinstance(logits, Tensor)
        return logits

    def keep(self, rows: Tensor) -> None:
        self.mask = self.mask[rows]
