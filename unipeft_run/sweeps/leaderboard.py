"""The published results of a leaderboard's rows beside ours, printed below the closing table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median

from unipeft_run.config.experiments import Cell, Experiment, find_experiment, key_values
from unipeft_run.runs.columns import fit_columns
from unipeft_run.runs.outcome import Outcome
from unipeft_run.runs.printable import printable
from unipeft_run.sweeps.table import label_rows

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
    """Print our and the printed results of each configuration, averaged over its seeds.

    Prints nothing without a finished run of an experiment with sources. `rows`: the name and the
    overrides of each run, in the order of `outcomes`.
    """
    values = key_values(overrides)
    known = list(_find_cells(values, settings))
    seedless = [
        (name, [word for word in own if not word.startswith("seed=")]) for name, own in rows
    ]
    runs: dict[str, list[Outcome]] = {}
    cells: dict[str, tuple[Experiment, Cell]] = {}
    for label, row, outcome in zip(label_rows(seedless), seedless, outcomes, strict=True):
        found = [(experiment, cell) for experiment, cell in known if _is_row(cell, *row)]
        if found and outcome["metrics"]:
            cells[label] = found[0]
            runs.setdefault(label, []).append(outcome)
    lines = [(label, *line) for label in runs for line in _lines(*cells[label], runs[label])]
    if not lines:
        return
    notes = [f"{cell.row}: {note}" for _, cell in cells.values() for note in cell.notes]
    notes += [MINIATURE] * ("mini" in values.get("scale", "").split(","))
    print()
    print("\n".join(fit_columns([HEADER, *lines])))
    print("\n".join(f"  note: {printable(note)}" for note in dict.fromkeys(notes)))


def _is_row(cell: Cell, name: str, overrides: Sequence[str]) -> bool:
    return cell.row == name and cell.matches(key_values(overrides))


def _find_cells(
    values: Mapping[str, str], settings: Sequence[str]
) -> Iterator[tuple[Experiment, Cell]]:
    """Yield the cells of the experiments that have sources, each with its experiment."""
    for name in values.get("experiment", "null").split(","):
        experiment = find_experiment([f"experiment={name}"], settings)
        if experiment and experiment.has_sources:
            for cell in experiment.cells:
                yield experiment, cell


def _lines(
    experiment: Experiment, cell: Cell, outcomes: Sequence[Outcome]
) -> Iterator[tuple[str, ...]]:
    """Yield, without its label, a line for each printed metric of a row that the runs have."""
    average = median if experiment.average == "median" else fmean
    metrics = experiment.metrics.get(cell.task or "", ())
    for metric, printed in zip(metrics, cell.printed, strict=False):
        found = [outcome["metrics"].get(f"test/{metric}") for outcome in outcomes]
        scores = [score for score in found if score is not None]
        if scores:
            ours = f"{average(scores):.2f}"
            yield metric, ours, f"{printed:.1f}", cell.status, cell.source
