"""Published tables: the results that the paper prints, next to those of our runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import Any

from unipeft_run.commands.shell import format_command
from unipeft_run.config import compose, resolve
from unipeft_run.config.experiments import Cell, Experiment, read_tables
from unipeft_run.config.identity import hash_config
from unipeft_run.config.messages import Illegal, options
from unipeft_run.config.schema import SLOTS
from unipeft_run.config.stored import upgrade
from unipeft_run.errors import UserError
from unipeft_run.report.cells import Spread, group_by_cell, measure_spread
from unipeft_run.report.differences import find_differences
from unipeft_run.report.tables import SPREAD, Row, Table
from unipeft_run.report.unmatched import describe_unmatched
from unipeft_run.runs.reader import RunRecord

MINIATURE = (
    "scale mini uses other data and another backbone: compare its rows with each other, not with "
    "the paper's"
)
MEDIAN = "the printed scores and ours are both medians over the seeds"
DEPARTURES = "differs in: settings in which our run departs from the paper's cell"
ILLEGAL = "illegal: "  # begins the reason why a cell cannot run


@dataclass(frozen=True)
class PaperTable:
    """A published table beside our runs. `missing`: the command of each cell without a run."""

    table: Table
    missing: Mapping[str, str]


def find_tables(runs: Sequence[RunRecord], experiment: Experiment | None) -> list[PaperTable]:
    """Return the tables of `experiment`, or else those of the paper of which `runs` have a row."""
    output = _common_output(runs)
    found = []
    for candidate in [experiment] if experiment else read_tables():
        if experiment or _shares_method(candidate, runs):
            for table in compare_with_paper(candidate, runs, by_name=not experiment):
                if experiment or any(row["seeds"] for row in table.rows):
                    missing = _list_missing(_name_tasks(candidate, runs), table, output)
                    found.append(PaperTable(table, missing))
    return found


def _shares_method(experiment: Experiment, runs: Sequence[RunRecord]) -> bool:
    """Return whether a run names the task and method of a cell."""
    return any(_names_method(cell, run) for cell in experiment.cells for run in runs)


def _names_method(cell: Cell, run: RunRecord) -> bool:
    return cell.matches({key: str(run.metrics[key]) for key in ("task", "method")})


def _list_missing(experiment: Experiment, table: Table, output: Sequence[str]) -> dict[str, str]:
    task, scale = table.facts["task"], table.facts["scale"]
    # rows that need no run: one with the cell's own settings is there, or the cell is illegal
    settled = {row["row"] for row in table.rows if bool(row["seeds"]) != bool(row["differs in"])}
    small = ["scale=mini"] * (scale == "mini")
    return {
        cell.row: format_command(["train", *cell.overrides[scale], *small, *output])
        for cell in experiment.cells
        if cell.task == task and cell.row not in settled
    }


def _common_output(runs: Sequence[RunRecord]) -> list[str]:
    """Return the override of the output folder, if all runs are in one other than ./outputs."""
    outputs = {_find_output(run) for run in runs}
    output = outputs.pop() if len(outputs) == 1 else None
    return [f"output={output}"] if output and output != Path("outputs").absolute() else []


def _find_output(run: RunRecord) -> Path | None:
    """Return the output folder, if the run is in OUTPUT/task/method/run_id."""
    parents = run.folder.absolute().parents
    return parents[2] if len(parents) > 2 and parents[1].name == run.metrics["task"] else None


def compare_with_paper(
    experiment: Experiment, runs: Sequence[RunRecord], *, by_name: bool = False
) -> list[Table]:
    """Make a table for each task of `experiment` and each scale at which `runs` has it.

    A cell that names no task stands for one on every task of the runs. `by_name`: look only for
    runs that name the cell's method; much faster. Otherwise a run of the same modules under another
    name counts too. Raises `UserError` if neither the cells nor the runs name a task.
    """
    experiment = _name_tasks(experiment, runs)
    tables = []
    for task in dict.fromkeys(cell.task for cell in experiment.cells if cell.task):
        ours = [run for run in runs if run.metrics["task"] == task]
        known = {run.metrics["scale"] for run in ours}.intersection(options("scale"))
        scales = sorted(known or {"paper"}, reverse=True)
        tables += [_make_table(experiment, task, scale, ours, by_name) for scale in scales]
    return tables


def _name_tasks(experiment: Experiment, runs: Sequence[RunRecord]) -> Experiment:
    """Replace each cell that names no task by one for every task on which `runs` has a cell."""
    if all(cell.task for cell in experiment.cells):
        return experiment
    own = [run for run in runs if any(_names_method(cell, run) for cell in experiment.cells)]
    tasks = dict.fromkeys(run.metrics["task"] for run in own or runs)
    if not tasks:
        raise UserError(
            f"experiment {experiment.name}: its cells name no task, and no finished run has one"
        )
    cells = [each for cell in experiment.cells for each in _on_tasks(cell, tasks)]
    return replace(experiment, cells=tuple(cells))


def _on_tasks(cell: Cell, tasks: Iterable[str]) -> Iterator[Cell]:
    if cell.task:
        yield cell
        return
    for task in tasks:
        overrides = {scale: (f"task={task}", *own) for scale, own in cell.overrides.items()}
        yield replace(cell, task=task, overrides=overrides)


def _make_table(
    experiment: Experiment, task: str, scale: str, runs: Sequence[RunRecord], by_name: bool
) -> Table:
    by_method: dict[str, list[RunRecord]] = {}
    for run in runs:
        if run.metrics["scale"] == scale:
            by_method.setdefault(_method_id(run.config), []).append(run)
    cells = [cell for cell in experiment.cells if cell.task == task]
    rows: list[Row] = []
    for cell in cells:
        known = not by_name or any(_names_method(cell, run) for run in runs)
        rows += _make_rows(cell, scale, experiment, by_method if known else {})
    notes = [*experiment.notes, *(f"{cell.row}: {note}" for cell in cells for note in cell.notes)]
    notes += [MINIATURE] * (scale == "mini")
    if not by_name and (left := _find_unmatched(cells, scale, by_method)):
        notes.append(left)
    if any(isinstance(row.get("seeds"), int) for row in rows):
        notes.append(SPREAD)
        notes += [MEDIAN] * (experiment.average == "median")
    if any(row["seeds"] and row["differs in"] for row in rows):
        notes.append(DEPARTURES)
    facts = {"experiment": experiment.name, "task": task, "scale": scale}
    return Table(f"{experiment.title}: {task}, scale {scale}", facts, rows, notes)


def _find_unmatched(
    cells: Sequence[Cell], scale: str, runs: Mapping[str, Sequence[RunRecord]]
) -> str:
    """Describe the runs that are of none of the cells; empty if there are none."""
    configs = {}
    for cell in cells if runs else ():
        with suppress(Illegal):
            configs[cell.row] = _compose((*cell.overrides[scale], f"scale={scale}"))
    ids = set(map(_method_id, configs.values()))
    left = [run for method, own in runs.items() if method not in ids for run in own]
    return describe_unmatched(left, configs) if left else ""


def _method_id(config: Mapping[str, Any]) -> str:
    """Return an id of the trained modules, backbone and task; the recipe is not part of it."""
    kept = {key: config.get(key) for key in (*SLOTS, "unfreeze")}
    kept["peft"] = (config.get("peft") or {}).get("type")
    backbone = config["backbone"]
    kept["backbone"] = {key: backbone.get(key) for key in ("name", "weights")}
    return hash_config(upgrade({**kept, "task": config["task"]["name"]}))


def _make_rows(
    cell: Cell, scale: str, experiment: Experiment, runs: Mapping[str, Sequence[RunRecord]]
) -> Iterator[Row]:
    """Yield a row for the runs of the cell, all seeds together, then rows for other settings.

    The row of an illegal cell has the reason in place of other settings.
    """
    if not runs:
        yield _make_row(cell, experiment, [], "")
        return
    try:
        config = _compose((*cell.overrides[scale], f"scale={scale}"))
    except Illegal as reason:
        yield _make_row(cell, experiment, [], f"{ILLEGAL}{reason}")
        return
    for group in group_by_cell(runs.get(_method_id(config), ())) or [[]]:
        departures = find_differences([config, group[0].config])[1] if group else ""
        yield _make_row(cell, experiment, group, departures)


@cache
def _compose(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Compose a cell's configuration; tables share cells. Callers must not change it."""
    return resolve(compose(overrides)).plain()


def _make_row(
    cell: Cell, experiment: Experiment, group: Sequence[RunRecord], departures: str
) -> Row:
    row: Row = {
        "row": cell.row,
        "% printed": cell.share,
        "% ours": float(group[0].metrics["parameters/stored_percent"]) if group else None,
        "seeds": len(group) or None,
    }
    average = median if experiment.average == "median" else fmean
    metrics = experiment.metrics.get(cell.task or "", ())
    if group and not metrics:  # an experiment of the user
        metrics = (str(group[0].metrics["primary"]).removeprefix("test/"),)
    std = cell.std or (None,) * len(cell.printed)
    printed = dict(zip(metrics, map(Spread, cell.printed, std), strict=False))
    for metric in metrics:
        if experiment.metrics:
            row[f"{metric} printed"] = printed.get(metric)
        row[f"{metric} ours"] = measure_spread(group, f"test/{metric}", average) if group else None
    if experiment.has_sources:
        row |= {"status": cell.status, "source": cell.source}
    return {**row, "differs in": departures}
