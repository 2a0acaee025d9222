"""Training curves from train.jsonl, averaged over the seeds of a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from unipeft_run.runs.reader import RunRecord, is_number
from unipeft_run.runs.reading import UnreadableFile

LARGEST = 1e30  # drawn value; matplotlib overflows beyond it


@dataclass(frozen=True)
class Curve:
    """A value over the steps. `stds`: standard deviation over seeds (n - 1), 0 for one seed."""

    steps: Sequence[int]
    means: Sequence[float]
    stds: Sequence[float]

    @property
    def has_band(self) -> bool:
        """Return whether any step has a standard deviation."""
        return any(self.stds)


def read_curve(runs: Sequence[RunRecord], key: str) -> Curve:
    """Average `key` at every step over the runs that recorded it there."""
    values: dict[int, list[float]] = {}
    for run in runs:
        for step, value in read_points(run, key).items():
            values.setdefault(step, []).append(value)
    steps = sorted(values)
    stds = [stdev(values[step]) if len(values[step]) > 1 else 0.0 for step in steps]
    return Curve(steps, [fmean(values[step]) for step in steps], stds)


def read_points(run: RunRecord, key: str) -> Mapping[int, float]:
    """Map the steps at which `run` recorded `key` to its values; the last record of a step wins."""
    try:
        records = list(run.train_records())
    except UnreadableFile:
        return {}
    return {r["step"]: float(r[key]) for r in records if is_drawable(r.get(key))}


def thin(curve: Curve, points: int) -> Curve:
    """Average neighbouring points, so that at most `points` remain."""
    size = -(-len(curve.steps) // points)
    if size <= 1:
        return curve
    parts = [slice(start, start + size) for start in range(0, len(curve.steps), size)]
    means, stds = ([fmean(values[part]) for part in parts] for values in (curve.means, curve.stds))
    return Curve([curve.steps[part][-1] for part in parts], means, stds)


def is_drawable(value: Any) -> bool:
    """Return whether `value` is a number that a figure can show."""
    return is_number(value) and abs(value) < LARGEST


def selection_metric(runs: Sequence[RunRecord]) -> str:
    """Return the task's metric if validation records have it, else the loss."""
    names = dict.fromkeys(
        f"validation/{run.metric[0].partition('/')[2]}" for run in runs if run.metric
    )
    recorded = [name for name in names if any(read_points(run, name) for run in runs)]
    return recorded[0] if recorded else "validation/loss"
