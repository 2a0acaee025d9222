"""The paper's tables and figures as lists of runs, read from conf/experiment/.

A file lists `cells`. A cell has the overrides of its run (`run`, and `paper` or `mini` for that
scale, by task if they differ) and what the paper prints: `share`, and by task `printed` (ordered as
the file's `metrics`) and `std`. Cells of tables also have `parts`, the modules and their sizes, by
task if they differ.
`table6_xsum` names the cells of table6 on one task.

A leaderboard row (seeds_*.yaml) was printed by other papers, and not always for what it claims to
be. Its cells also have a `source`, and a `status`, a key of `STATUS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from unipeft_run.config.messages import SeveralRuns, find_option, options, unknown_choice
from unipeft_run.config.presets import LOADER
from unipeft_run.errors import UserError
from unipeft_run.extensions import conf_dir, config_dirs

STATUS = {  # of a leaderboard row: how reliable its source is
    "A": "identified",
    "B": "found under another label",
    "C": "not found",
}
LEADERBOARD = "seeds_"  # begins the names of leaderboard rows
Average = Literal["mean", "median"]
FILTERS = ("task", "method")  # given along with experiment=, these select among its cells


@dataclass(frozen=True)
class Cell:
    """One run of an experiment.

    `overrides` holds its overrides by scale. `printed` and `std` are in percent, `share` in percent
    of the backbone's parameters, or of all parameters with the added ones if `share_of` is "all".
    `parts` names its modules as `name_parts` does; `size_note` says where the size or the share
    comes from. `source`: who printed the results, and `status` how reliable that is, in words.
    `share_source`: who printed the share, if that is someone else.
    """

    row: str
    overrides: Mapping[str, tuple[str, ...]]
    task: str | None = None
    share: float | None = None
    printed: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    note: str = ""
    parts: str = ""
    size_note: str = ""
    share_of: Literal["backbone", "all"] = "backbone"
    share_source: str = ""
    source: str = ""
    status: str = ""

    @property
    def notes(self) -> list[str]:
        """The notes of the cell, without empty ones."""
        return [note for note in (self.note, self.size_note) if note]

    def matches(self, wanted: Mapping[str, str]) -> bool:
        """Return whether the cell has the `wanted` task and method; a missing one matches all."""
        own = key_values([o for overrides in self.overrides.values() for o in overrides])
        return all(wanted[key] == own[key] for key in FILTERS if key in wanted and key in own)


@dataclass(frozen=True)
class Experiment:
    """One published table or figure. `metrics` lists the printed metrics of each task.

    `average`: how the printed results summarise several seeds.
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
    metrics: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()
    average: Average = "mean"

    @property
    def has_sources(self) -> bool:
        """True if the cells name the source of their printed results."""
        return any(cell.source for cell in self.cells)

    @property
    def label(self) -> str:
        """The table as a text cites it: Table 6."""
        return self.title.partition(":")[0]


def read(name: str, folders: Sequence[Path] = ()) -> Experiment | None:
    """Read experiment `name` from `folders` (each laid out like conf/), else from conf/.

    Returns None for a file without cells, which is an ordinary Hydra file. Raises UserError.
    """
    file, task = _locate(name, folders)
    data = _load(file)
    if "cells" not in data:
        return None
    try:
        rows = [cell for row in data["cells"] for cell in _cells(row)]
        cells = tuple(cell for cell in rows if task in (None, cell.task))
        metrics = {task: tuple(names) for task, names in data.get("metrics", {}).items()}
        notes = tuple(map(str, data.get("notes", ())))
        average: Average = "median" if data.get("average") == "median" else "mean"
        return Experiment(name, str(data.get("title", name)), cells, metrics, notes, average)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"experiment {name}: every cell needs run: [key=value, ...]; see conf/experiment"
        ) from None


def expand(overrides: Sequence[str], settings: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """Expand `experiment=` in `overrides` to one (row name, overrides) pair per cell.

    `settings` holds Hydra's own overrides, such as its search path. Raises UserError.
    """
    experiment = find_experiment(overrides, settings)
    if experiment is None:
        return [("", [override for override in overrides if override != "experiment=null"])]
    values = key_values(overrides)
    rest = [override for override in overrides if not override.startswith("experiment=")]
    cells = [cell for cell in experiment.cells if cell.matches(values)]
    if not cells:
        wanted = " ".join(f"{key}={values[key]}" for key in FILTERS if key in values)
        raise UserError(f"experiment {experiment.name} has no cell of {wanted}")
    scale = _scale(values)
    return [(cell.row, list(dict.fromkeys((*cell.overrides[scale], *rest)))) for cell in cells]


def find_experiment(overrides: Sequence[str], settings: Sequence[str] = ()) -> Experiment | None:
    """Read the experiment that `overrides` select; None unless it lists cells. Raises UserError."""
    name = key_values(overrides).get("experiment", "null")
    if name == "null" or not re.fullmatch(r"[\w/-]+", name):  # a list of values: left to Hydra
        return None
    return read(name, _search_path([*settings, *overrides]))


def refuse_experiment(overrides: Sequence[str]) -> None:
    """Raise `SeveralRuns` if `overrides` select an experiment where one run is expected."""
    if experiment := find_experiment(overrides):
        raise SeveralRuns(f"experiment={experiment.name} is {len(experiment.cells)} runs")


def _cells(row: Mapping[str, Any]) -> Iterator[Cell]:
    """Yield one cell per task of a row; a single one if the row prints no results."""
    printed = row.get("printed") or {}
    for task in printed or [None]:
        run = [str(override) for override in ([f"task={task}"] * bool(task) + row["run"])]
        yield Cell(
            row=str(row.get("row", " ".join(run))),
            overrides={
                scale: (*run, *map(str, _of_task(row.get(scale, ()), task) or ()))
                for scale in options("scale")
            },
            task=task or key_values(run).get("task"),
            share=row.get("share"),
            printed=tuple(printed.get(task, ())),
            std=tuple(row.get("std", {}).get(task, ())),
            note=str(row.get("note", "")),
            parts=str(_of_task(row.get("parts", ""), task) or ""),
            size_note=str(row.get("size_note", "")),
            share_of="all" if row.get("share_of") == "all" else "backbone",
            share_source=str(row.get("share_source", "")),
            source=str(row.get("source", "")),
            status=STATUS[row["status"]] if "status" in row else "",
        )


def _of_task(value: Any, task: str | None) -> Any:
    """Return the entry for `task`, if any, or the value itself if it is the same for all tasks."""
    return value.get(task) if isinstance(value, Mapping) else value


@cache
def read_tables() -> tuple[Experiment, ...]:
    """Read the paper's tables, in the paper's order."""
    numbers = (re.fullmatch(r"table(\d+)", name) for name in options("experiment"))
    in_order = sorted(int(match[1]) for match in numbers if match)
    found = (read(f"table{number}") for number in in_order)
    return tuple(table for table in found if table is not None)


@cache
def read_leaderboards() -> tuple[Experiment, ...]:
    """Read the leaderboard rows."""
    found = (read(name) for name in options("experiment") if name.startswith(LEADERBOARD))
    return tuple(board for board in found if board is not None)


def names() -> list[str]:
    """List the experiments: the files of conf/experiment/, and each with one of its tasks.

    A file named after its task is not listed twice.
    """
    experiments = []
    for name in options("experiment"):
        tasks = _load(find_option("experiment", name)).get("metrics", {})
        parts = (f"{name}_{task}" for task in tasks if f"_{task}_" not in f"{name}_")
        experiments += [name, *parts]
    return sorted(experiments)


def _locate(name: str, folders: Sequence[Path]) -> tuple[Path, str | None]:
    """Find the file of an experiment, and the task in its name, if any."""
    for folder in (*folders, *config_dirs(), conf_dir()):
        for task in (None, *options("task")):
            base = name if task is None else name.removesuffix(f"_{task}")
            file = folder / "experiment" / f"{base}.yaml"
            if file.is_file() and (task is None or task in _load(file).get("metrics", {})):
                return file, task
    raise UserError(unknown_choice("experiment", name, names()))


def _load(file: Path) -> dict[str, Any]:
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is damaged: {str(error).splitlines()[0]}") from None
    return data if isinstance(data, dict) else {}


def key_values(overrides: Sequence[str]) -> dict[str, str]:
    """Split overrides into keys and values; the last value of a key wins."""
    return {key: value for key, _, value in (override.partition("=") for override in overrides)}


def _scale(values: Mapping[str, str]) -> str:
    scale = values.get("scale", "paper")
    if scale not in options("scale"):
        raise UserError(unknown_choice("scale", scale, options("scale")))
    return scale


def _search_path(overrides: Sequence[str]) -> list[Path]:
    """List the folders of hydra.searchpath=[file://DIR,...] in `overrides`."""
    paths = [override for override in overrides if override.startswith("hydra.searchpath=")]
    return [Path(folder) for path in paths for folder in re.findall(r"file://([^,\]]+)", path)]
