"""When a training evaluates, records, checkpoints and ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unipeft_run.errors import UserError
from unipeft_run.training.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """All in updates; `early_stopping` in evaluations that bring no new best. None: never."""

    total: int
    epoch: int
    evaluate: int | None
    record: int
    checkpoint: int | None
    early_stopping: int | None

    def done(self, progress: Progress) -> bool:
        """Whether training is over."""
        patience = self.early_stopping or math.inf
        return progress.step >= self.total or progress.misses >= patience

    def evaluation_due(self, progress: Progress) -> bool:
        """Whether the state as it is should be evaluated: once, and at the end in any case."""
        if self.evaluate is None or progress.step == progress.evaluated:
            return False
        return progress.step == self.total or progress.step % self.evaluate == 0

    def record_due(self, progress: Progress) -> bool:
        """Whether the numbers of training should be written down."""
        return progress.step == self.total or progress.step % self.record == 0

    def checkpoint_due(self, progress: Progress) -> bool:
        """Whether to checkpoint; after an evaluation that is done anyway."""
        if self.checkpoint is None or self.evaluation_due(progress):
            return False
        return progress.step % self.checkpoint == 0

    def next_evaluation(self, step: int) -> int | None:
        """The step of the first evaluation after `step`."""
        if self.evaluate is None or step >= self.total:
            return None
        return min(self.total, (step // self.evaluate + 1) * self.evaluate)

    def epochs(self, step: int) -> float:
        """Epochs passed at `step`."""
        return round(step / self.epoch, 4)


def count_steps(max_steps: int | None, epochs: float | None, steps_per_epoch: int) -> int:
    """Updates in all: `max_steps` if given, else `epochs`."""
    if max_steps is not None:
        return max_steps
    if epochs is None:
        raise UserError("give recipe.max_steps or recipe.epochs")
    return math.ceil(epochs * steps_per_epoch)
