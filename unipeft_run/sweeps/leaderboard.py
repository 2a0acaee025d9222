"""The published results of a leaderboard's rows beside ours, printed below the closing table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median

from unipeft_run.config.experiments import Cell, Experiment, find_experiment, key_values
from unipeft_run.runs.columns import fit_columns
from unipeft_run.runs.outcome import Outcome
from unipeft_run.runs.printable import printable

HEADER = ("row", "metric", "ours", "printed", "status", "source")
MINIATURE = (
    "scale=mini uses other data and another backbone: these scores are not the paper's, and say "
    "nothing about them"
)


def print_leaderboard(
    rows: Sequence[tuple[str, Sequence[str]]],
    outcomes: Sequence[Outcome],
    overrides: Sequence[str],
    settings: Sequence[str] = (),
) -> None:
    """Print our and the printed results of each row, averaged over seeds.

    Prints nothing without a finished run of an experiment with sources. `rows`: the name and the
    overrides of each run, in the order of `outcomes`.
    """
    values = key_values(overrides)
    found = dict(_find_cells(values, settings))
    by_row: dict[str, list[Outcome]] = {}
    for (name, _), outcome in zip(rows, outcomes, strict=True):
        if name in found and outcome["metrics"]:
            by_row.setdefault(name, []).append(outcome)
    lines = [line for name, runs in by_row.items() for line in _lines(*found[name], runs)]
    if not lines:
        return
    notes = [f"{name}: {note}" for name in by_row for note in found[name][1].notes]
    notes += [MINIATURE] * (values.get("scale") == "mini")
    print()
    print("\n".join(fit_columns([HEADER, *lines])))
    print("\n".join(f"  note: {printable(note)}" for note in dict.fromkeys(notes)))


def _find_cells(
    values: Mapping[str, str], settings: Sequence[str]
) -> Iterator[tuple[str, tuple[Experiment, Cell]]]:
    """Yield the cells, by row, of the experiments that have sources."""
    for name in values.get("experiment", "null").split(","):
        experiment = find_experiment([f"experiment={name}"], settings)
        if experiment and experiment.has_sources:
            for cell in experiment.cells:
                yield cell.row, (experiment, cell)


def _lines(
    experiment: Experiment, cell: Cell, outcomes: Sequence[Outcome]
) -> Iterator[tuple[str, ...]]:
    """Yield a line for each printed metric of a row that the runs have."""
    average = median if experiment.average == "median" else fmean
    for metric, printed in zip(experiment.metrics[cell.task or ""], cell.printed, strict=True):
        found = [outcome["metrics"].get(f"test/{metric}") for outcome in outcomes]
        scores = [score for score in found if score is not None]
        if scores:
            ours = f"{average(scores):.2f}"
            yield cell.row, metric, ours, f"{printed:.1f}", cell.status, cell.source
