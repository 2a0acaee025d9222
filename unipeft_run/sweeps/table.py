"""The closing table of a grid or a search."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from unipeft_run.runs.columns import fit_columns
from unipeft_run.runs.outcome import Outcome
from unipeft_run.runs.printable import printable

Cell = list[str]
HEADER = ("cell", "state", "metric", "seconds")


def primary_metric(outcome: Outcome) -> str:
    """Return the name of the outcome's primary metric; empty if it has none."""
    return str(outcome["metrics"].get("primary", ""))


def print_table(
    cells: Sequence[Cell],
    outcomes: Sequence[Outcome],
    metric_of: Callable[[Outcome], str] = primary_metric,
) -> None:
    """Print each cell's own overrides and its outcome; print the reasons to stderr.

    Values are printed literally: neither markup nor control sequences have an effect.
    `metric_of` returns the name of the metric to show, or an empty string.
    """
    rows = []
    for label, outcome in zip(own_labels(cells), outcomes, strict=True):
        metric = format_metric(outcome, metric_of(outcome))
        rows.append((label, outcome["state"], metric, f"{outcome['seconds']:.0f}"))
        if outcome["error"]:
            error = "\n".join(map(printable, outcome["error"].splitlines()))
            print(f"{outcome['state']}: {label}: {error}", file=sys.stderr)
    print("\n".join(fit_columns([HEADER, *rows])))


def format_metric(outcome: Outcome, name: str) -> str:
    """Return a metric's name and value; empty for an empty name."""
    return f"{name} {outcome['metrics'][name]:.2f}" if name else ""


def label_rows(rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Label each row by its name, and by what distinguishes it from others of that name."""
    shared: dict[str, set[str]] = {}
    for name, overrides in rows:
        shared[name] = shared.get(name, set(overrides)).intersection(overrides)
    return [
        printable(" ".join([name, *(w for w in overrides if w not in shared[name])]).strip())
        for name, overrides in rows
    ]


def own_labels(cells: Sequence[Cell]) -> list[str]:
    """Return the overrides of each cell that the others do not share, printable, without ++."""
    common = set.intersection(*(set(cell) for cell in cells)) if len(cells) > 1 else set()
    own = (
        " ".join(word.removeprefix("++") for word in cell if word not in common) for cell in cells
    )
    return [printable(label or " ".join(cell)) for label, cell in zip(own, cells, strict=True)]
