"""The cadence of a training run: when it logs, evaluates, checkpoints and ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unipeft_run.errors import UserError
from unipeft_run.training.progress import Progress

MOST_STEPS = 10**9
TOLERANCE = 0.05  # of the passes over the data


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """Intervals in updates, None for never.

    `total`: the last update. `passes`: passes over the training data per update. `early_stopping`:
    the number of evaluations in a row without a new best after which training ends.
    """

    total: int
    passes: float
    evaluate: int | None
    log: int
    checkpoint: int | None
    early_stopping: int | None

    def is_done(self, progress: Progress) -> bool:
        """Return whether training is over."""
        patience = self.early_stopping or math.inf
        return progress.step >= self.total or progress.misses >= patience

    def is_evaluation_due(self, progress: Progress) -> bool:
        """Return whether to evaluate: at each interval and after the last update, once per step."""
        if self.evaluate is None or progress.step == progress.evaluated:
            return False
        return progress.step == self.total or progress.step % self.evaluate == 0

    def is_log_due(self, progress: Progress) -> bool:
        """Return whether to log a training record."""
        return progress.step == self.total or progress.step % self.log == 0

    def is_checkpoint_due(self, progress: Progress) -> bool:
        """Return whether to checkpoint; an evaluation checkpoints anyway."""
        if self.checkpoint is None or self.is_evaluation_due(progress):
            return False
        return progress.step % self.checkpoint == 0

    def next_evaluation(self, step: int) -> int | None:
        """Return the step of the first evaluation after `step`."""
        if self.evaluate is None or step >= self.total:
            return None
        return min(self.total, (step // self.evaluate + 1) * self.evaluate)

    def epochs_at(self, step: int) -> float:
        """Return the passes over the training data completed at `step`."""
        return round(step * self.passes, 4)


def count_steps_per_epoch(batches: int, accumulation: int) -> int:
    """Return the number of updates that an epoch of recipe.epochs stands for, at least 1.

    As in the official code, it is rounded down: 3 batches with accumulation 2 are one update.
    """
    return max(1, batches // accumulation)


def count_steps(max_steps: int | None, epochs: float | None, steps_per_epoch: int) -> int:
    """Return the number of updates: `max_steps` if given, else those in `epochs`."""
    if max_steps is not None:
        return max_steps
    if epochs is None:
        raise UserError("give recipe.max_steps or recipe.epochs")
    if epochs * steps_per_epoch > MOST_STEPS:
        raise UserError(
            f"recipe.epochs={epochs:g}: at most {MOST_STEPS:,} updates, and an epoch has "
            f"{steps_per_epoch:,}"
        )
    steps = round(epochs * steps_per_epoch, 6)  # 0.55 * 100 is 55.000000000000007
    return max(1, math.ceil(steps))


def describe_rounding(
    max_steps: int | None, epochs: float | None, batches: int, accumulation: int
) -> str | None:
    """Return a line if recipe.epochs makes over 5 % more or fewer passes than it says."""
    if max_steps is not None or epochs is None:
        return None
    steps = count_steps(None, epochs, count_steps_per_epoch(batches, accumulation))
    passes = steps * accumulation / max(1, batches)
    if abs(passes / epochs - 1) <= TOLERANCE:
        return None
    return (
        f"recipe.epochs={epochs:g} makes {passes:.2f} passes over the training data: an epoch is "
        "rounded to whole updates"
    )
