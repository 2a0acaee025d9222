"""The paper's tables and figures as lists of runs: the files of conf/experiment/.

A file lists `cells`, or says which `task` it takes `of` another file. A cell is a row of data:
`run`, the words of its command line; `paper` and `mini`, further words at that scale; and what
the paper prints for it: `share`, and by task `printed` (ordered as the file's `metrics`) and `std`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from unipeft_run.config.messages import conf_dir, options, unknown_choice
from unipeft_run.errors import UserError

FILTERS = ("task", "method")  # given beside an experiment, these choose among its cells


@dataclass(frozen=True)
class Cell:
    """`printed` and `std` in percent, `share` in percent of the backbone's parameters."""

    row: str
    words: Mapping[str, tuple[str, ...]]  # by scale
    task: str | None = None
    share: float | None = None
    printed: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    note: str = ""

    def fits(self, given: Mapping[str, str]) -> bool:
        """Whether the cell is of the task and the method in `given`, where both have one."""
        own = _given([word for words in self.words.values() for word in words])
        return all(given[key] == own[key] for key in FILTERS if key in given and key in own)


@dataclass(frozen=True)
class Experiment:
    """`metrics`: by task, what the paper prints of it."""

    name: str
    title: str
    cells: tuple[Cell, ...]
    metrics: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()


def read(name: str, folders: Sequence[Path] = ()) -> Experiment | None:
    """The experiment `name` of conf/experiment/, or of `folders` (each like conf/) before it.

    None for a file that lists no cells: that one is Hydra's. Raises `UserError`.
    """
    data, of = _data(name, folders), None
    if "of" in data:
        data, of = _data(str(data["of"]), folders), data.get("task")
    if "cells" not in data:
        return None
    try:
        rows = [cell for row in data["cells"] for cell in _cells(row)]
        cells = tuple(cell for cell in rows if of in (None, cell.task))
        metrics = {task: tuple(names) for task, names in data.get("metrics", {}).items()}
        notes = tuple(map(str, data.get("notes", ())))
        return Experiment(name, str(data.get("title", name)), cells, metrics, notes)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"experiment {name}: each of its cells needs run: [key=value, ...]; see conf/experiment"
        ) from None


def expand(words: Sequence[str], settings: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """The command line `words`, once for each cell of the experiment that they name, if any.

    With each the name of its row. `settings`: Hydra's own words, where its search path stands.
    Raises `UserError`.
    """
    experiment = named(words, settings)
    if experiment is None:
        return [("", list(words))]
    given = _given(words)
    rest = [word for word in words if not word.startswith("experiment=")]
    cells = [cell for cell in experiment.cells if cell.fits(given)]
    if not cells:
        chosen = " ".join(f"{key}={given[key]}" for key in FILTERS if key in given)
        raise UserError(f"experiment {experiment.name} has no cell of {chosen}")
    scale = _scale(given)
    return [(cell.row, list(dict.fromkeys((*cell.words[scale], *rest)))) for cell in cells]


def named(words: Sequence[str], settings: Sequence[str] = ()) -> Experiment | None:
    """The experiment that `words` name, if it lists cells. Raises `UserError`."""
    name = _given(words).get("experiment", "null")
    if name == "null" or not re.fullmatch(r"[\w/-]+", name):  # several values, or Hydra's to judge
        return None
    return read(name, _search_path([*settings, *words]))


def refuse(words: Sequence[str]) -> None:
    """Raises `UserError` where `words` name many runs, and one is asked for."""
    if experiment := named(words):
        raise UserError(
            f"experiment={experiment.name} is {len(experiment.cells)} runs; "
            "add -m to run each of them"
        )


def _cells(row: Mapping[str, Any]) -> Iterator[Cell]:
    """One cell for each task of a row; one for a row of which nothing is printed."""
    printed = row.get("printed") or {}
    for task in printed or [None]:
        run = [str(word) for word in ([f"task={task}"] * bool(task) + row["run"])]
        yield Cell(
            row=str(row.get("row", " ".join(run))),
            words={scale: (*run, *map(str, row.get(scale, ()))) for scale in options("scale")},
            task=task or _given(run).get("task"),
            share=row.get("share"),
            printed=tuple(printed.get(task, ())),
            std=tuple(row.get("std", {}).get(task, ())),
            note=str(row.get("note", "")),
        )


def _data(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    for folder in (*folders, conf_dir()):
        file = folder / "experiment" / f"{name}.yaml"
        if file.is_file():
            break
    else:
        raise UserError(unknown_choice("experiment", name, options("experiment")))
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is damaged: {str(error).splitlines()[0]}") from None
    return data if isinstance(data, dict) else {}


def _given(words: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def _scale(given: Mapping[str, str]) -> str:
    scale = given.get("scale", "paper")
    if scale not in options("scale"):
        raise UserError(unknown_choice("scale", scale, options("scale")))
    return scale


def _search_path(words: Sequence[str]) -> list[Path]:
    """The folders of hydra.searchpath=[file://DIR,...] in `words`."""
    path = [word for word in words if word.startswith("hydra.searchpath=")]
    return [Path(folder) for word in path for folder in re.findall(r"file://([^,\]]+)", word)]
