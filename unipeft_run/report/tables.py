"""A table per task, its data, scale and backbone: methods by what they reach and what they cost.

Beside the methods stand the grounds: the untouched backbone, an untrained backbone, and a baseline
that needs no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean, stdev
from typing import Any

from unipeft_run.report.differences import differences
from unipeft_run.report.folders import Run, is_number

CONTAMINATION = (
    "the backbone is MiniLM, whose own training probably saw the pairs of SNLI and MultiNLI: "
    "part of these figures is contamination (untrained backbone: backbone.weights=random)"
)
NOTES = {("mnli", "mini"): CONTAMINATION}
SPREAD = "+- is the standard deviation over the seeds (n - 1)"
COSTS = {
    "tokens/s": "train/tokens_per_second",
    "seconds": "wall_seconds",
}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1; None for one value) over seeds; nan where a value is."""

    mean: float
    std: float | None = None


Value = str | int | float | Spread | None
Row = dict[str, Value]


@dataclass(frozen=True)
class Table:
    """`facts`: what all rows share, for a table of tables."""

    title: str
    facts: Mapping[str, str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    columns: list[str] = field(init=False)

    def __post_init__(self) -> None:
        names = dict.fromkeys(name for row in self.rows for name in row)
        object.__setattr__(self, "columns", list(names))


def tables(runs: Sequence[Run]) -> list[Table]:
    """The tables of `runs`: figures stand in one only where they are of the same examples."""
    return [_table(key, list(group)) for key, group in groupby(sorted(runs, key=_key), _key)]


def _key(run: Run) -> tuple[str, str, str, str]:
    return run.metrics["task"], run.metrics["scale"], run.metrics["backbone"], _data(run.config)


def _data(config: Mapping[str, Any]) -> str:
    """What a run started from and saw, where that is not the backbone's and all the task's own."""
    limits = config.get("limit") or {}
    words = [f"limit.{split}={count}" for split, count in limits.items() if count is not None]
    for section in ("backbone", "task"):
        if (path := (config.get(section) or {}).get("path")) is not None:
            words.insert(0, f"{section}.path={path}")
    return " ".join(words)


def _table(key: tuple[str, str, str, str], runs: Sequence[Run]) -> Table:
    task, scale, backbone, data = key
    cells = by_cell(runs)
    labels = _labels([cell[0] for cell in cells])
    rows = [_row(label, cell) for label, cell in zip(labels, cells, strict=True)]
    ranked = sorted(zip(cells, rows, strict=True), key=_rank)
    grounds = _trivial_rows(runs)
    several = any(len(cell) > 1 for cell in cells)
    known = NOTES.get((task, scale))
    notes = [SPREAD] * several + _signatures(runs) + ([known] if known else [])
    facts = {"task": task, "scale": scale, "backbone": backbone, "data": data}
    title = f"{task}, scale {scale}, {backbone}" + (f", {data}" if data else "")
    return Table(title, facts, [row for _, row in ranked] + grounds, notes)


def by_cell(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs that differ in nothing but the seed, together."""
    cells: dict[str, list[Run]] = {}
    for run in runs:
        cells.setdefault(f"{run.metrics['method']} {run.cell}", []).append(run)
    return list(cells.values())


def spread(runs: Sequence[Run], name: str) -> Spread | None:
    """Of the metric `name` over `runs`; None where one of them has no such metric."""
    if not all(name in run.metrics for run in runs):
        return None
    found = [run.metrics[name] for run in runs]
    values = [float(value) if is_number(value) else math.nan for value in found]
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)


def _row(label: str, cell: Sequence[Run]) -> Row:
    first = cell[0].metrics
    metrics = {name.removeprefix("test/"): spread(cell, name) for name in _metric_names(first)}
    share, steps = first["parameters/stored_percent"], {run.step for run in cell}
    return {
        "method": label,
        "seeds": len(cell),
        **metrics,
        "trained": int(first["parameters/trained"]),
        "stored": int(first["parameters/stored"]),
        "stored %": float(share),
        "steps": steps.pop() if len(steps) == 1 else None,
        **{title: _mean(cell, name) for title, name in COSTS.items()},
    }


def _metric_names(metrics: Mapping[str, Any]) -> list[str]:
    """The primary metric, the loss, and all other metrics of the test split."""
    first = [metrics["primary"], "test/loss"]
    return first + [name for name in metrics if name.startswith("test/") and name not in first]


def _mean(cell: Sequence[Run], name: str) -> float | None:
    found = spread(cell, name)
    return found.mean if found else None


def _rank(entry: tuple[Sequence[Run], Row]) -> tuple[bool, bool, float]:
    """The best first; methods on an untrained backbone after them, what trains nothing last."""
    cell, _ = entry
    reached = _mean(cell, cell[0].metrics["primary"])
    known = reached if reached is not None and not math.isnan(reached) else -math.inf
    return cell[0].metrics["method"] == "none", _is_random(cell[0]), -known


def _is_random(run: Run) -> bool:
    return bool(run.config["backbone"]["weights"] == "random")


def _labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its method, and what sets it apart from others of that method."""
    names = [_name(run) for run in runs]
    labels = dict(enumerate(names))
    for name in dict.fromkeys(names):
        alike = [number for number, other in enumerate(names) if other == name]
        for number, words in zip(
            alike, differences([runs[number].config for number in alike]), strict=True
        ):
            labels[number] = f"{name} {words}".strip()
    return list(labels.values())


def _name(run: Run) -> str:
    method = str(run.metrics["method"])
    name = "untouched backbone (none)" if method == "none" else method
    return f"{name}, random backbone" if _is_random(run) else name


def _trivial_rows(runs: Sequence[Run]) -> list[Row]:
    """A row for each trivial baseline; there is one unless the data differ (limit.test)."""
    found: dict[tuple[str, Any], Row] = {}
    for run in runs:
        name = run.metrics.get("trivial/name")
        if name is None:
            continue
        figures = {
            key.removeprefix("trivial/"): Spread(float(value))
            for key, value in run.metrics.items()
            if key.startswith("trivial/") and is_number(value)
        }
        found[name, tuple(figures.items())] = {"method": f"trivial: {name}", **figures}
    return list(found.values())


def _signatures(runs: Sequence[Run]) -> list[str]:
    """How each metric was computed, the metrics of one signature together."""
    names: dict[str, dict[str, None]] = {}
    for run in runs:
        signatures = run.metrics.get("signatures")
        for metric, signature in signatures.items() if isinstance(signatures, dict) else ():
            if metric != "per_example":
                names.setdefault(str(signature), {})[metric] = None
    return [f"{', '.join(metrics)}: {signature}" for signature, metrics in names.items()]
