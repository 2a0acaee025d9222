"""The paper's tables and figures as lists of runs: the files of conf/experiment/.

A file lists `cells`. A cell has the overrides of its run (`run`, and `paper` or `mini` for that
scale) and what the paper prints: `share`, and by task `printed` (ordered as the file's `metrics`)
and `std`. Cells of tables also have `parts`, the modules and their sizes, by task if they differ.
`table6_xsum` names the cells of table6 on one task.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from unipeft_run.config.messages import conf_dir, options, unknown_choice
from unipeft_run.config.presets import LOADER
from unipeft_run.errors import UserError

FILTERS = ("task", "method")  # beside experiment=, these select among its cells


@dataclass(frozen=True)
class Cell:
    """One run of an experiment.

    `words`: its overrides, by scale. `printed` and `std` are in percent, `share` in percent of the
    backbone's parameters. `parts` names its modules as `name_parts` does; `size_note` says where
    the size or the share comes from.
    """

    row: str
    words: Mapping[str, tuple[str, ...]]
    task: str | None = None
    share: float | None = None
    printed: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    note: str = ""
    parts: str = ""
    size_note: str = ""

    @property
    def notes(self) -> list[str]:
        """The notes of the cell, without empty ones."""
        return [note for note in (self.note, self.size_note) if note]

    def fits(self, given: Mapping[str, str]) -> bool:
        """Tell whether the cell has the task and the method in `given`, where both name one."""
        own = key_values([word for words in self.words.values() for word in words])
        return all(given[key] == own[key] for key in FILTERS if key in given and key in own)


@dataclass(frozen=True)
class Experiment:
    """A published table. `metrics`: by task, the metrics that the paper prints."""

    name: str
    title: str
    cells: tuple[Cell, ...]
    metrics: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The table as a text cites it: Table 6."""
        return self.title.partition(":")[0]


def read(name: str, folders: Sequence[Path] = ()) -> Experiment | None:
    """Read experiment `name` from conf/experiment/, or from `folders` (each like conf/) first.

    None for a file without cells, which is an ordinary Hydra file. Raises UserError.
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
        return Experiment(name, str(data.get("title", name)), cells, metrics, notes)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"experiment {name}: every cell needs run: [key=value, ...]; see conf/experiment"
        ) from None


def expand(words: Sequence[str], settings: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """Expand `experiment=` in `words` to one command line per cell, each with its row's name.

    `settings`: Hydra's own overrides, which hold its search path. Raises UserError.
    """
    experiment = named(words, settings)
    if experiment is None:
        return [("", list(words))]
    given = key_values(words)
    rest = [word for word in words if not word.startswith("experiment=")]
    cells = [cell for cell in experiment.cells if cell.fits(given)]
    if not cells:
        chosen = " ".join(f"{key}={given[key]}" for key in FILTERS if key in given)
        raise UserError(f"experiment {experiment.name} has no cell of {chosen}")
    scale = _scale(given)
    return [(cell.row, list(dict.fromkeys((*cell.words[scale], *rest)))) for cell in cells]


def named(words: Sequence[str], settings: Sequence[str] = ()) -> Experiment | None:
    """Read the experiment that `words` name, if it lists cells. Raises UserError."""
    name = key_values(words).get("experiment", "null")
    if name == "null" or not re.fullmatch(r"[\w/-]+", name):  # several values: Hydra judges
        return None
    return read(name, _search_path([*settings, *words]))


def refuse_experiment(words: Sequence[str]) -> None:
    """Raise UserError if `words` name an experiment of many runs where one run is expected."""
    if experiment := named(words):
        raise UserError(
            f"experiment={experiment.name} is {len(experiment.cells)} runs; "
            "add -m to run each of them"
        )


def _cells(row: Mapping[str, Any]) -> Iterator[Cell]:
    """Yield one cell per task of a row; one for a row without printed figures."""
    printed = row.get("printed") or {}
    for task in printed or [None]:
        run = [str(word) for word in ([f"task={task}"] * bool(task) + row["run"])]
        yield Cell(
            row=str(row.get("row", " ".join(run))),
            words={scale: (*run, *map(str, row.get(scale, ()))) for scale in options("scale")},
            task=task or key_values(run).get("task"),
            share=row.get("share"),
            printed=tuple(printed.get(task, ())),
            std=tuple(row.get("std", {}).get(task, ())),
            note=str(row.get("note", "")),
            parts=_of_task(row.get("parts", ""), task),
            size_note=str(row.get("size_note", "")),
        )


def _of_task(value: Any, task: str | None) -> str:
    """Return the entry for `task`, or the value itself if it is the same for all tasks."""
    return str(value.get(task, "") if isinstance(value, Mapping) else value)


@cache
def read_tables() -> tuple[Experiment, ...]:
    """Read the paper's tables, in the paper's order."""
    numbers = (re.fullmatch(r"table(\d+)", name) for name in options("experiment"))
    in_order = sorted(int(match[1]) for match in numbers if match)
    found = (read(f"table{number}") for number in in_order)
    return tuple(table for table in found if table is not None)


def names() -> list[str]:
    """List the experiments: the files of conf/experiment/, and each of their tasks."""
    found = []
    for name in options("experiment"):
        tasks = _load(conf_dir() / "experiment" / f"{name}.yaml").get("metrics", {})
        found += [name, *(f"{name}_{task}" for task in tasks)]
    return sorted(found)


def _locate(name: str, folders: Sequence[Path]) -> tuple[Path, str | None]:
    """Find the file of an experiment, and the task that the name narrows it to."""
    for folder in (*folders, conf_dir()):
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


def key_values(words: Sequence[str]) -> dict[str, str]:
    """Split overrides into keys and values; the last value of a key wins."""
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def _scale(given: Mapping[str, str]) -> str:
    scale = given.get("scale", "paper")
    if scale not in options("scale"):
        raise UserError(unknown_choice("scale", scale, options("scale")))
    return scale


def _search_path(words: Sequence[str]) -> list[Path]:
    """List the folders of hydra.searchpath=[file://DIR,...] in `words`."""
    path = [word for word in words if word.startswith("hydra.searchpath=")]
    return [Path(folder) for word in path for folder in re.findall(r"file://([^,\]]+)", word)]
