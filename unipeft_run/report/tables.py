"""Tables of finished runs, one per task, data, scale and backbone; methods ranked, with their cost.

Baselines are rows too: the pretrained backbone, a randomly initialised backbone, and a trivial
baseline that needs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unipeft_run.report.cells import Cell, Group, Interval, Spread, group_runs, measure_spread
from unipeft_run.report.differences import as_mapping
from unipeft_run.runs.reader import RunRecord, is_number

CONTAMINATION = (
    "the backbone is MiniLM, whose own training data probably contained the pairs of SNLI and "
    "MultiNLI: part of these scores is contamination (baseline: backbone.weights=random)"
)
NOTES = {("mnli", "mini"): CONTAMINATION}
SPREAD = "+- is the standard deviation over the seeds (n - 1)"
SILENT = {"references": ("raw",)}  # signatures that say nothing, by metric; also `accuracy (%)`
COSTS = {"tokens/s": "train/tokens_per_second", "seconds": "wall_seconds"}


Value = str | int | float | Spread | Interval | None
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
    return list(map(make_table, group_runs(runs)))


def make_table(group: Group) -> Table:
    """Make the table of a group: its cells, ranked, then the trivial baselines."""
    known = NOTES.get((group.task, group.scale))
    has_seeds = any(len(cell.runs) > 1 for cell in group.cells)
    notes = [SPREAD] * has_seeds + _find_signatures(group.runs) + ([known] if known else [])
    rows = [*map(_make_row, group.cells), *_make_trivial_rows(group.runs)]
    return Table(group.title, group.facts, rows, notes)


def _make_row(cell: Cell) -> Row:
    first, costs = cell.metrics, {}
    names = _metric_names(first)
    scores = {name.removeprefix("test/"): measure_spread(cell.runs, name) for name in names}
    steps = {run.step for run in cell.runs}
    for title, name in COSTS.items():
        spread = measure_spread(cell.runs, name)
        costs[title] = spread.mean if spread else None
    return {
        "method": cell.label,
        "seeds": len(cell.runs),
        **scores,
        "trained": int(first["parameters/trained"]),
        "stored": int(first["parameters/stored"]),
        "stored %": float(first["parameters/stored_percent"]),
        "steps": steps.pop() if len(steps) == 1 else None,
        **costs,
    }


def _metric_names(metrics: Mapping[str, Any]) -> list[str]:
    """List the primary metric, the loss, then all other metrics of the test split."""
    first = [metrics["primary"], "test/loss"]
    return first + [name for name in metrics if name.startswith("test/") and name not in first]


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
            if metric != "per_example" and signature not in SILENT.get(metric, (f"{metric} (%)",)):
                names.setdefault(str(signature), {})[metric] = None
    return [f"{', '.join(metrics)}: {signature}" for signature, metrics in names.items()]
