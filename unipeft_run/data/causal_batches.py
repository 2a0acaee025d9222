"""Collate prompts and responses into batches for decoder-only models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from unipeft_run.data.batching import IGNORED, Collator


@dataclass(frozen=True)
class CausalCollator(Collator):
    """Pads prompts with their responses on the right, into a batch for a decoder-only model.

    The batch holds `input_ids`, `attention_mask` and `labels` [B, T]. The labels are those ids, but
    -100 for padding, for the first token, which nothing predicts, and with `loss_on="response"` for
    the prompt.
    """

    loss_on: Literal["response", "all"] = "response"

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        return self.collate(rows, self.loss_on)

    def collate(
        self, rows: Sequence[Mapping[str, Any]], loss_on: Literal["response", "all"]
    ) -> dict[str, Tensor]:
        """Return a batch with labels on the responses or on all tokens."""
        texts = [row["input_ids"] for row in rows]
        firsts = [row["prompt_length"] if loss_on == "response" else 1 for row in rows]
        pairs = zip(texts, firsts, strict=True)
        labels = [[*[IGNORED] * first, *ids[first:]] for ids, first in pairs]
        return {**self.pad_sources(texts), "labels": self._pad(labels, IGNORED)}

    def pad_prompts(self, prompts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` and `position_ids` [B, S], padded on the left.

        Positions count tokens, not padding.
        """
        flipped = self.pad_sources([prompt[::-1] for prompt in prompts])
        batch = {name: tensor.flip(1) for name, tensor in flipped.items()}
        positions = batch["attention_mask"].cumsum(1) - 1
        return {**batch, "position_ids": positions.clamp(min=0)}
