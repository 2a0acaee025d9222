"""The learning rate of each method on each task: the trial with the lowest validation loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from archive import Record
from grid import Cell, Rates

from unipeft_run.config.experiments import key_values

LOSS = "validation/loss"


@dataclass(frozen=True)
class Trial:
    """A trial's learning rate and its validation loss; None if the run diverged."""

    cell: Cell
    rate: float
    loss: float | None


def read_trials(records: Iterable[Record]) -> dict[tuple[str, str], list[Trial]]:
    """Return the trials of every task and method, in the order of their rates."""
    found: dict[tuple[str, str], list[Trial]] = {}
    for record in records:
        cell = Cell(record.cell)
        rate = float(key_values(cell.overrides)["optim.lr"])
        loss = record.scores.get(LOSS) if record.state == "done" else None
        found.setdefault((cell.task, cell.method), []).append(Trial(cell, rate, loss))
    return {key: sorted(trials, key=lambda trial: trial.rate) for key, trials in found.items()}


def choose_rates(records: Iterable[Record]) -> Rates:
    """Return the rate with the lowest validation loss of every task and method."""
    found = read_trials(records)
    if unfinished := [key for key, trials in found.items() if not _finished(trials)]:
        raise ValueError(f"every trial diverged: {unfinished}")
    return {key: _best(trials).rate for key, trials in found.items()}


def _best(trials: Iterable[Trial]) -> Trial:
    return min(_finished(trials), key=lambda trial: trial.loss or 0.0)


def _finished(trials: Iterable[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.loss is not None]
