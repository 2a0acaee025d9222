"""A published table: what the paper prints beside what our runs reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unipeft_run.config import compose, resolve, run_id
from unipeft_run.config.experiments import Cell, Experiment
from unipeft_run.config.schema import SLOTS
from unipeft_run.report.differences import differences
from unipeft_run.report.folders import Run
from unipeft_run.report.tables import SPREAD, Row, Spread, Table, by_cell, spread

MINIATURE = (
    "scale mini is other data and another backbone: its rows may be compared with each other, not "
    "with the paper's"
)
DEPARTS = "differs in: what a run was given that the paper's cell was not"


def published(experiment: Experiment, runs: Sequence[Run]) -> list[Table]:
    """A table for each task of `experiment` and each scale that `runs` has it at."""
    tables = []
    for task in dict.fromkeys(cell.task for cell in experiment.cells if cell.task):
        ours = [run for run in runs if run.metrics["task"] == task]
        scales = sorted({run.metrics["scale"] for run in ours} or {"paper"}, reverse=True)
        tables += [_table(experiment, task, scale, ours) for scale in scales]
    return tables


def _table(experiment: Experiment, task: str, scale: str, runs: Sequence[Run]) -> Table:
    by_method: dict[str, list[Run]] = {}
    for run in runs:
        if run.metrics["scale"] == scale:
            by_method.setdefault(_method(run.config), []).append(run)
    cells = [cell for cell in experiment.cells if cell.task == task]
    metrics = experiment.metrics.get(task, ())
    rows = [row for cell in cells for row in _rows(cell, scale, metrics, by_method)]
    notes = [*experiment.notes, *(f"{cell.row}: {cell.note}" for cell in cells if cell.note)]
    if any(isinstance(row.get("seeds"), int) for row in rows):
        notes += [SPREAD, *([MINIATURE] * (scale == "mini"))]
    if any(row["differs in"] for row in rows):
        notes.append(DEPARTS)
    facts = {"experiment": experiment.name, "task": task, "scale": scale}
    return Table(f"{experiment.title}: {task}, scale {scale}", facts, rows, notes)


def _method(config: Mapping[str, Any]) -> str:
    """The id of what is attached to which backbone on which task, however it is trained."""
    kept = {key: config.get(key) for key in (*SLOTS, "unfreeze")}
    task, backbone = config["task"]["name"], config["backbone"]
    kept["backbone"] = {key: backbone[key] for key in ("name", "weights")}
    return run_id({**kept, "task": task, "recipe": {}})


def _rows(
    cell: Cell, scale: str, metrics: Sequence[str], runs: Mapping[str, Sequence[Run]]
) -> Iterator[Row]:
    """The runs that are the cell but for their seed in one row, those trained otherwise below."""
    config = resolve(compose([*cell.words[scale], f"scale={scale}"]))
    for group in by_cell(runs.get(_method(config), ())) or [[]]:
        departs = differences([config, group[0].config])[1] if group else ""
        yield _row(cell, metrics, group, departs)


def _row(cell: Cell, metrics: Sequence[str], group: Sequence[Run], departs: str) -> Row:
    row: Row = {
        "row": cell.row,
        "% printed": cell.share,
        "% ours": float(group[0].metrics["parameters/stored_percent"]) if group else None,
        "seeds": len(group) or None,
    }
    std = cell.std or (None,) * len(cell.printed)
    for metric, mean, deviation in zip(metrics, cell.printed, std, strict=True):
        row[f"{metric} printed"] = Spread(mean, deviation)
        row[f"{metric} ours"] = spread(group, f"test/{metric}") if group else None
    return {**row, "differs in": departs}
