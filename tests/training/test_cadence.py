"""The number of updates that recipe.epochs stands for."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_training import make_trainer

from unipeft_run.training.cadence import count_steps, count_steps_per_epoch, describe_rounding


@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch", "steps"),
    [(0.55, 100, 55), (0.07, 100, 7), (0.551, 100, 56), (1e-9, 100, 1), (2.5, 3, 8)],
)
def test_a_fraction_of_an_epoch_is_rounded_up(
    epochs: float, steps_per_epoch: int, steps: int
) -> None:
    assert count_steps(None, epochs, steps_per_epoch) == steps


@pytest.mark.parametrize(("batches", "accumulation", "steps"), [(3, 2, 1), (6, 2, 3), (2, 8, 1)])
def test_an_epoch_is_rounded_down_to_whole_updates(
    batches: int, accumulation: int, steps: int
) -> None:
    assert count_steps_per_epoch(batches, accumulation) == steps


def test_rounding_is_announced_if_it_changes_the_passes() -> None:
    line = describe_rounding(None, 3, batches=3, accumulation=2) or ""
    assert line.startswith("recipe.epochs=3 makes 2.00 passes over the training data: ")
    assert "makes 4.00 passes" in (describe_rounding(None, 1, batches=2, accumulation=8) or "")
    assert describe_rounding(None, 10, batches=100, accumulation=3) is None
    assert describe_rounding(7, None, batches=3, accumulation=2) is None


def test_the_recorded_epoch_is_the_number_of_passes(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=None, epochs=1, accumulation=4)  # of 6 batches
    assert trainer.cadence.total == 1
    assert trainer.cadence.epochs_at(1) == pytest.approx(4 / 6, abs=1e-4)
