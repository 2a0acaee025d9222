"""Tables of significance tests: runs against the first one, or the cells of a group with its best.

The p-values of approximate randomisation are adjusted over each table (Holm).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from unipeft_run.config.messages import unknown_choice
from unipeft_run.report.cells import Cell, Group, Interval, measure_spread
from unipeft_run.report.differences import as_mapping
from unipeft_run.report.tables import Row, Table
from unipeft_run.runs.printable import printable
from unipeft_run.runs.reader import RunRecord

LEVEL = 0.05
VERSION = re.compile(r"\|?\bversion:[^|\s]*|\b\d+(\.\d+)+\S*")
NAMED = 3  # configurations that cannot be tested, with the reason
TESTS = (
    "paired tests over {count:,} examples, {samples:,} resamples: they say whether a difference "
    "would hold on other examples, not with other seeds"
)
COLUMNS = (
    "95 % interval and p bootstrap: paired bootstrap; p randomisation: approximate randomisation; "
    "p McNemar: mid-p value; all two-sided; p Holm: p randomisation, adjusted for the number of "
    "rows; significant: p Holm < 0.05"
)
POOLED = "each configuration's per-example statistics are averaged over its seeds"


def compare_runs(runs: Sequence[RunRecord], metric: str | None = None) -> Table:
    """Tabulate the tests of each run against the first. Raises `UntestableError`.

    `metric`: a metric of the test split; by default the primary one.
    """
    from unipeft_run.report.statistics import UntestableError

    first = runs[0].metrics
    for run in runs[1:]:
        if (task := run.metrics["task"]) != first["task"]:
            other = f"{runs[0].label} is one of task {printable(first['task'])}"
            raise UntestableError(f"{run.label} is a run of task {printable(task)}, but {other}")
    metric = metric or str(first["primary"]).removeprefix("test/")
    if f"test/{metric}" not in first:
        known = [name.removeprefix("test/") for name in first if name.startswith("test/")]
        raise UntestableError(unknown_choice("metric", metric, list(map(printable, known))))
    cells = [Cell(run.label, [run]) for run in runs]
    table, reasons = _compare(cells, metric, first["task"])
    if reasons:
        raise UntestableError(reasons[0])
    return table


def compare_cells(group: Group) -> Table:
    """Tabulate the tests of each cell of `group` against the best one.

    Notes name the first cells that cannot be tested, and count the others.
    """
    table, reasons = _compare(group.cells, group.primary, group.title)
    pooled = [POOLED] * any(len(cell.runs) > 1 for cell in group.cells)
    return replace(table, notes=[*table.notes, *pooled, *_shorten(reasons)])


def _shorten(reasons: Sequence[str]) -> list[str]:
    more = len(reasons) - NAMED
    if more < 2:
        return list(reasons)
    return [*reasons[:NAMED], f"{more} more configurations cannot be compared either"]


def _compare(cells: Sequence[Cell], metric: str, title: str) -> tuple[Table, list[str]]:
    """Return the table of `cells` against the first that can be tested, and what was left out."""
    from unipeft_run.report.significance import SAMPLES, compare

    examples, reasons = _read(cells, metric)
    if examples and examples[0][0] is not cells[0]:
        first_tested = f"baseline: {examples[0][0].label}, the first that can be tested"
        reasons = [printable(first_tested, 400), *reasons]
    facts = {"metric": metric}
    title = f"Significance of differences in {metric}: {title}"
    if len(examples) < 2:
        return Table(title, facts, [], ["fewer than two configurations can be compared"]), reasons
    (first, (keys, baseline)), *others = examples
    found = compare(baseline, [sample for _, (_, sample) in others])
    rows = [_make_row(cell, metric, each) for (cell, _), each in zip(others, found, strict=True)]
    head: Row = {"method": f"{first.label} (baseline)", metric: _score(first, metric)}
    notes = [TESTS.format(count=len(keys), samples=SAMPLES), COLUMNS]
    return Table(title, facts, [head, *_adjust(rows)], notes), reasons


def _read(cells: Sequence[Cell], metric: str) -> tuple[list[tuple[Cell, Any]], list[str]]:
    """Return the cells with their examples' keys and sample, and why others are left out.

    All examples must be those of the first cell that can be read.
    """
    from unipeft_run.report.statistics import UntestableError, read_pooled

    found: list[tuple[Cell, Any]] = []
    reasons = []
    for cell in cells:
        try:
            keys, sample = read_pooled(cell.runs, metric)
        except UntestableError as error:
            reasons.append(str(error))
            continue
        first = found[0][0] if found else cell
        if found and found[0][1][0] != keys:
            reasons.append(f"{cell.label} was scored on other examples than {first.label}")
        elif _signature(cell, metric) != _signature(first, metric):
            other = f"for {cell.label} as for {first.label}"
            reasons.append(f"{metric} was not computed in the same way {other}")
        else:
            found.append((cell, (keys, sample)))
    return found, [printable(reason, 400) for reason in reasons]


def _signature(cell: Cell, metric: str) -> str:
    """Return how the metric was computed, without the versions of libraries."""
    signature = str(as_mapping(cell.metrics.get("signatures")).get(metric, ""))
    return " ".join(VERSION.sub("", signature).split())


def _score(cell: Cell, metric: str) -> Any:
    return measure_spread(cell.runs, f"test/{metric}")


def _make_row(cell: Cell, metric: str, found: Any) -> Row:
    mcnemar = {} if found.mcnemar is None else {"p McNemar": found.mcnemar}
    return {
        "method": cell.label,
        metric: _score(cell, metric),
        "difference": found.points,
        "95 % interval": Interval(found.low, found.high),
        "p bootstrap": found.bootstrap,
        "p randomisation": found.randomisation,
        **mcnemar,
    }


def _adjust(rows: Sequence[Row]) -> list[Row]:
    """Add the adjusted p-values, and whether they are significant at the 5 % level."""
    from unipeft_run.report.significance import holm

    adjusted = holm([float(row["p randomisation"]) for row in rows])  # type: ignore[arg-type]
    return [
        {**row, "p Holm": p, "significant": "yes" if p < LEVEL else "no"}
        for row, p in zip(rows, adjusted, strict=True)
    ]
