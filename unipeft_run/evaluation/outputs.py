"""The outputs of an evaluation: summed losses, and predictions that a thread decodes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Outputs:
    """The outputs of one process: summed loss of `count` targets, predictions by example index."""

    loss: float = 0.0
    count: int = 0
    predictions: dict[int, Any] = field(default_factory=dict)
    pending: tuple[Sequence[int], Future[list[Any]]] | None = None

    def add_loss(self, mean: float, count: int) -> None:
        self.loss += mean * count
        self.count += count

    def add_pending(self, examples: Sequence[int], outputs: Future[list[Any]]) -> None:
        """Add outputs that are being decoded, after those of the previous batch."""
        self.collect()
        self.pending = examples, outputs

    def collect(self) -> None:
        """Wait for the pending outputs, or raise the error of their decoding."""
        if self.pending is not None:
            examples, outputs = self.pending
            self.pending = None
            self.predictions.update(zip(examples, outputs.result(), strict=True))


def merge(parts: Sequence[Outputs]) -> Outputs:
    """Merge the outputs of all processes, whose examples are disjoint."""
    merged = Outputs()
    for part in parts:
        merged.loss, merged.count = merged.loss + part.loss, merged.count + part.count
        merged.predictions |= part.predictions
    return merged
