"""Pad batches to a few fixed shapes, with padding that changes neither loss nor gradients.

Shape legend: B examples, S source tokens, T target tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from unipeft_run.data.batching import IGNORED, round_up

ROWS = 8  # B is rounded up to a multiple of it if batches vary in size
Shape = tuple[tuple[str, tuple[int, ...]], ...]


class BatchGrid(Protocol):
    """Pads batches to a few shapes."""

    def pad(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class RowGrid:
    """A multiple that B is rounded up to, for batches whose tensors [B, ...] differ in B alone."""

    rows: int

    def pad(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Add examples of zeros, whose labels are ignored."""
        added = -len(batch["labels"]) % self.rows
        return {
            name: F.pad(t, (0, 0) * (t.dim() - 1) + (0, added), value=IGNORED * (name == "labels"))
            for name, t in batch.items()
        }


@dataclass(frozen=True)
class ShapeGrid:
    """Multiples that B, S and T are rounded up to.

    With sources in steps of 64 and targets in steps of 32, XSum has 14 shapes and 6 % padding.
    `longest`: the number of positions of the model, which padding never exceeds.
    """

    pad_token_id: int
    rows: int
    longest: int
    source: int = 64
    target: int = 32

    def pad(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Pad `batch`. Added examples see one padding token, and all their labels are ignored."""
        rows = int(round_up(len(batch["input_ids"]), self.rows))
        source = self._widen(batch["input_ids"].size(1), self.source)
        padded = {
            "input_ids": _pad(batch["input_ids"], rows, source, self.pad_token_id),
            "attention_mask": _pad(batch["attention_mask"], rows, source, 0),
        }
        # without a visible token, its softmax would be NaN
        padded["attention_mask"][len(batch["input_ids"]) :, 0] = 1
        labels = batch["labels"]
        if labels.dim() == 1:
            return {**padded, "labels": F.pad(labels, (0, rows - len(labels)), value=IGNORED)}
        if "decoder_input_ids" not in batch:
            return {**padded, "labels": _pad(labels, rows, source, IGNORED)}
        target = self._widen(labels.size(1), self.target)
        inputs = _pad(batch["decoder_input_ids"], rows, target, self.pad_token_id)
        return {
            **padded,
            "labels": _pad(labels, rows, target, IGNORED),
            "decoder_input_ids": inputs,
        }

    def _widen(self, width: int, multiple: int) -> int:
        return max(width, min(int(round_up(width, multiple)), self.longest))


def _pad(tensor: Tensor, rows: int, width: int, value: int) -> Tensor:
    return F.pad(tensor, (0, width - tensor.size(1), 0, rows - len(tensor)), value=value)


def shape_of(batch: Mapping[str, Tensor]) -> Shape:
    """Return the names and sizes of the tensors of `batch`, as a key."""
    return tuple((name, tuple(tensor.shape)) for name, tensor in sorted(batch.items()))
