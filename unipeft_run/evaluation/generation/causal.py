"""Run a decoder-only model: prompts once per source, then one position of all beams at a time.

Shape legend: B sources, K beams, n tokens so far, S prompt positions, P longest prefix, V
vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from unipeft_run.deltas.attention import IMPLEMENTATIONS as ATTACHED
from unipeft_run.errors import UserError
from unipeft_run.evaluation.generation.cache import PromptCache
from unipeft_run.evaluation.generation.decoder import (
    Decoder,
    count_longest,
    find_prefixes,
    use_attention,
)
from unipeft_run.evaluation.generation.settings import Settings


@dataclass(frozen=True)
class Prompts:
    """The prompts of a batch, padded on the left: tokens and mask, [B, S] each."""

    tokens: Tensor
    mask: Tensor

    @classmethod
    def align(cls, input_ids: Tensor, attention_mask: Tensor) -> Self:
        """Move all padding to the left. Raises UserError for a prompt without tokens."""
        if not bool(attention_mask.any(dim=1).all()):
            raise UserError("a prompt has no tokens; give at least one, such as <s>")
        order = attention_mask.bool().long().argsort(dim=1, stable=True)
        return cls(input_ids.gather(1, order), attention_mask.gather(1, order))

    def find_positions(self) -> Tensor:
        """Return the position of each token: the number of tokens before it, [B, S].

        Padding is at position 1, as in transformers 4, which UniPELT's published gates depend on.
        """
        positions = self.mask.long().cumsum(dim=1) - 1
        return positions.masked_fill(self.mask == 0, 1)


class CausalDecoder(Decoder):
    """A decoder-only model.

    The prompts run as in training, without beams. Their keys and values are shared by the beams of
    a source. All beams of a source share the position of the step.
    """

    def __init__(self, model: Any, prompts: Prompts, settings: Settings) -> None:
        self.shared = settings.prompt
        dtype = model.get_input_embeddings().weight.dtype
        super().__init__(model, prompts.tokens, settings, dtype)
        self.mask, self.positions = prompts.mask, prompts.find_positions()
        prefixes = find_prefixes(model, "self")
        self.prefix_length = count_longest(prefixes)
        self.own = self.cache = PromptCache(prefixes, self.steps, settings.num_beams)
        self.window = getattr(model.config, "sliding_window", None)
        self.first: Tensor | None = None  # logits after the prompts, [B, 1, V]

    def start(self) -> None:
        # not transformers' eager attention, whose softmax of padding is NaN in float64
        with use_attention(self.model, ATTACHED):
            self.first = self.model(
                input_ids=self.prompts,
                attention_mask=self.mask,
                position_ids=self.positions,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
        self.positions = self.positions[:, -1:] + 1
        leading = self.prefix_length + self.cache.prompt - self.shared
        self.mask = F.pad(self.mask.bool(), (leading, 0), value=True)[:, None, None]
        super().start()

    def __call__(self, seen: Tensor, visible: Tensor) -> Tensor:
        if self.first is not None:
            logits, self.first = self.first, None
            return logits.expand(-1, seen.size(1), -1)
        return super().__call__(seen, visible)

    def step(self, tokens: Tensor, visible: Tensor) -> Tensor:
        shared = self.mask.expand(-1, -1, visible.size(2), -1)
        mask = torch.cat([shared, visible], dim=3)
        logits = self.model(
            input_ids=tokens,
            attention_mask=mask,
            window_mask=self._cut_window(mask, tokens.size(1)),
            position_ids=self.positions.expand_as(tokens),
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        self.positions = self.positions + 1
        assert isinstance(logits, Tensor)
        return logits

    def keep(self, rows: Tensor) -> None:
        self.mask, self.positions = self.mask[rows], self.positions[rows]
        self.prompts = self.prompts[rows]
        self.cache.keep(rows)

    def _cut_window(self, mask: Tensor, beams: int) -> Tensor | None:
        """Return `mask` without the keys that sliding attention no longer sees.

        As in transformers, distances include padding, and a prefix is always visible.
        """
        if self.window is None:
            return None
        prompt, position = self.cache.prompt, self.cache.position
        distances = torch.cat(
            [
                torch.arange(prompt + position, position, -1, device=mask.device),
                torch.arange(position, -1, -1, device=mask.device).repeat_interleave(beams),
            ]
        )
        seen = F.pad(distances < self.window, (self.prefix_length, 0), value=True)
        return mask & seen
