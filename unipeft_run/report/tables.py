"""Tables of finished runs, one per task, data, scale and backbone; methods ranked, with their cost.

Baselines are rows too: the untouched backbone, a randomly initialised backbone, and a trivial
baseline that needs no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean, stdev
from typing import Any

from unipeft_run.evaluation.metrics.by_name import is_lower_better
from unipeft_run.report.differences import as_mapping, find_differences
from unipeft_run.runs.reader import RunRecord, is_number

CONTAMINATION = (
    "the backbone is MiniLM, whose own training data probably contained the pairs of SNLI and "
    "MultiNLI: part of these scores is contamination (baseline: backbone.weights=random)"
)
NOTES = {("mnli", "mini"): CONTAMINATION}
SPREAD = "+- is the standard deviation over the seeds (n - 1)"
COSTS = {"tokens/s": "train/tokens_per_second", "seconds": "wall_seconds"}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1; None for one value) over seeds; nan if a value is nan."""

    mean: float
    std: float | None = None


Value = str | int | float | Spread | None
Row = dict[str, Value]


@dataclass(frozen=True)
class Table:
    """A titled table. `facts`: columns that are the same in all rows, written to CSV."""

    title: str
    facts: Mapping[str, str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    columns: list[str] = field(init=False)

    def __post_init__(self) -> None:
        names = dict.fromkeys(name for row in self.rows for name in row)
        object.__setattr__(self, "columns", list(names))


def make_tables(runs: Sequence[RunRecord]) -> list[Table]:
    """Make the tables of `runs`; rows of one table were scored on the same examples."""
    return [_make_table(key, list(group)) for key, group in groupby(sorted(runs, key=_key), _key)]


def _key(run: RunRecord) -> tuple[str, str, str, str]:
    metrics = run.metrics
    return metrics["task"], metrics["scale"], metrics["backbone"], _describe_data(run.config)


def _describe_data(config: Mapping[str, Any]) -> str:
    """Name the limits and paths that replace the task's own data or the backbone's weights."""
    limits = as_mapping(config.get("limit"))
    overrides = [f"limit.{split}={count}" for split, count in limits.items() if count is not None]
    for section, key in (("backbone", "path"), ("task", "data"), ("task", "path")):
        if (place := as_mapping(config.get(section)).get(key)) is not None:
            overrides.insert(0, f"{section}.{key}={place}")
    return " ".join(overrides)


def _make_table(key: tuple[str, str, str, str], runs: Sequence[RunRecord]) -> Table:
    task, scale, backbone, data = key
    cells = group_by_cell(runs)
    labels = _label_runs([cell[0] for cell in cells])
    rows = [_make_row(label, cell) for label, cell in zip(labels, cells, strict=True)]
    ranked = sorted(zip(cells, rows, strict=True), key=_rank)
    known = NOTES.get((task, scale))
    has_seeds = any(len(cell) > 1 for cell in cells)
    notes = [SPREAD] * has_seeds + _find_signatures(runs) + ([known] if known else [])
    facts = {"task": task, "scale": scale, "backbone": backbone, "data": data}
    title = f"{task}, scale {scale}, {backbone}" + (f", {data}" if data else "")
    return Table(title, facts, [row for _, row in ranked] + _make_trivial_rows(runs), notes)


def group_by_cell(runs: Iterable[RunRecord]) -> list[list[RunRecord]]:
    """Group the runs that differ only in their seed."""
    cells: dict[str, list[RunRecord]] = {}
    for run in runs:
        cells.setdefault(f"{run.metrics['method']} {run.cell}", []).append(run)
    return list(cells.values())


def measure_spread(runs: Sequence[RunRecord], name: str) -> Spread | None:
    """Return mean and deviation of metric `name` over `runs`; None if one of them lacks it."""
    if not all(name in run.metrics for run in runs):
        return None
    values = [run.metrics[name] for run in runs]
    if not all(map(is_number, values)):  # null replaces values that were not finite
        return Spread(math.nan)
    try:
        return Spread(fmean(values), stdev(map(float, values)) if len(values) > 1 else None)
    except OverflowError:
        return Spread(math.nan)


def _make_row(label: str, cell: Sequence[RunRecord]) -> Row:
    first = cell[0].metrics
    names = _metric_names(first)
    scores = {name.removeprefix("test/"): measure_spread(cell, name) for name in names}
    steps = {run.step for run in cell}
    return {
        "method": label,
        "seeds": len(cell),
        **scores,
        "trained": int(first["parameters/trained"]),
        "stored": int(first["parameters/stored"]),
        "stored %": float(first["parameters/stored_percent"]),
        "steps": steps.pop() if len(steps) == 1 else None,
        **{title: _mean(cell, name) for title, name in COSTS.items()},
    }


def _metric_names(metrics: Mapping[str, Any]) -> list[str]:
    """List the primary metric, the loss, then all other metrics of the test split."""
    first = [metrics["primary"], "test/loss"]
    return first + [name for name in metrics if name.startswith("test/") and name not in first]


def _mean(cell: Sequence[RunRecord], name: str) -> float | None:
    spread = measure_spread(cell, name)
    return spread.mean if spread else None


def _rank(entry: tuple[Sequence[RunRecord], Row]) -> tuple[bool, bool, float]:
    """Sort the best first, then methods on a random backbone, then the untrained baseline."""
    cell, _ = entry
    score = _mean(cell, cell[0].metrics["primary"])
    known = math.inf if score is None or math.isnan(score) else score
    if math.isfinite(known) and not is_lower_better(cell[0].metrics["primary"]):
        known = -known
    return cell[0].metrics["method"] == "none", _is_random(cell[0]), known


def _is_random(run: RunRecord) -> bool:
    return bool(run.config["backbone"]["weights"] == "random")


def _label_runs(runs: Sequence[RunRecord]) -> list[str]:
    """Label each run by its method and its differences from others of that method."""
    names = [_name(run) for run in runs]
    labels = dict(enumerate(names))
    for name in dict.fromkeys(names):
        same = [number for number, other in enumerate(names) if other == name]
        differences = find_differences([runs[number].config for number in same])
        for number, overrides in zip(same, differences, strict=True):
            labels[number] = f"{name} {overrides}".strip()
    return list(labels.values())


def _name(run: RunRecord) -> str:
    method = str(run.metrics["method"])
    name = "untouched backbone (none)" if method == "none" else method
    return f"{name}, random backbone" if _is_random(run) else name


def _make_trivial_rows(runs: Sequence[RunRecord]) -> list[Row]:
    """Make a row for each trivial baseline; several only if the test data differ (limit.test)."""
    rows: dict[tuple[str, Any], Row] = {}
    for run in runs:
        name = run.metrics.get("trivial/name")
        if not isinstance(name, str):
            continue
        scores = {
            key.removeprefix("trivial/"): Spread(float(value))
            for key, value in run.metrics.items()
            if key.startswith("trivial/") and is_number(value)
        }
        rows[name, tuple(scores.items())] = {"method": f"trivial: {name}", **scores}
    return list(rows.values())


def _find_signatures(runs: Sequence[RunRecord]) -> list[str]:
    """Describe how each metric was computed, metrics with the same signature together."""
    names: dict[str, dict[str, None]] = {}
    for run in runs:
        for metric, signature in as_mapping(run.metrics.get("signatures")).items():
            if metric != "per_example":
                names.setdefault(str(signature), {})[metric] = None
    return [f"{', '.join(metrics)}: {signature}" for signature, metrics in names.items()]
