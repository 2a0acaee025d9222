"""Reading run folders: what is finished becomes a `Run`, of the rest a sentence is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from unipeft_run.config import run_id
from unipeft_run.errors import UserError
from unipeft_run.runs.lock import is_running
from unipeft_run.runs.registry import LOADER

MARKS = ("config.yaml", "status.json", "metrics.json")  # one of them makes a folder a run's
STRINGS = ("task", "method", "scale", "backbone", "run_id", "primary")
NUMBERS = ("seed", "parameters/trained", "parameters/stored", "parameters/stored_percent")


@dataclass(frozen=True)
class Run:
    """A finished run. `metrics`: its metrics.json; `step`: how many updates were made."""

    folder: Path
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    step: int | None

    @cached_property
    def cell(self) -> str:
        """The id of the configuration whatever the seed: the seeds of one cell share it."""
        return run_id({**self.config, "seed": 0})


class _Left(Exception):
    """Why a run folder is left out of a table."""


def read_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The finished runs in and below `folders`, each once, and a line for every folder left out.

    Raises `UserError` where a folder is not there or holds no run.
    """
    runs: dict[str, Run] = {}
    left: list[str] = []
    for path in dict.fromkeys(found.resolve() for top in folders for found in _found(top)):
        shown = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
        run = read_run(path)
        if isinstance(run, str):
            left.append(f"{shown}: {run}")
            continue
        twin = runs.setdefault(f"{run.metrics['task']} {run.metrics['run_id']}", run)
        if twin is not run:
            left.append(f"{shown}: the same run as {twin.folder}")
    return list(runs.values()), left


def read_run(folder: Path) -> Run | str:
    """The finished run in `folder`, or why there is none, in a few words."""
    try:
        return _read(folder) if folder.is_dir() else "missing"
    except _Left as reason:
        return str(reason)


def _found(top: Path) -> list[Path]:
    if not top.is_dir():
        raise UserError(f"there is no folder {top}; give one that holds runs, as in outputs")
    paths = sorted(_run_folders(top))
    if not paths:
        raise UserError(f"{top} holds no run: there is no {', '.join(MARKS)} in it or below it")
    return paths


def _run_folders(top: Path) -> Iterator[Path]:
    """Never below a run folder: what trackers keep there looks like one."""
    for path, folders, files in os.walk(top):
        if any(mark in files for mark in MARKS):
            folders.clear()
            yield Path(path)


def _read(folder: Path) -> Run:
    status = _json(folder, "status.json") if (folder / "status.json").exists() else {}
    if not (folder / "metrics.json").exists():
        raise _Left(_state(folder, status))
    metrics = _json(folder, "metrics.json")
    names = [name for name in STRINGS if not isinstance(metrics.get(name), str)]
    names += [name for name in NUMBERS if not is_number(metrics.get(name))]
    if names or metrics["primary"] not in metrics:
        raise _Left(f"damaged: metrics.json lacks {', '.join(names) or metrics['primary']}")
    run = Run(folder, _config(folder), metrics, status.get("step"))
    try:
        run.cell, run.config["backbone"]["weights"], run.config["task"]["name"]  # to be compared by
    except (KeyError, TypeError, AttributeError):
        raise _Left("damaged: config.yaml does not hold a whole configuration") from None
    return run


def _config(folder: Path) -> dict[str, Any]:
    """As data: nothing of it is executed, and what newer runs also say may be missing."""
    try:
        config = yaml.load((folder / "config.yaml").read_bytes(), LOADER)
    except FileNotFoundError:
        raise _Left("damaged: there is no config.yaml in it") from None
    except (OSError, yaml.YAMLError) as error:
        raise _Left(f"damaged: config.yaml: {str(error).splitlines()[0]}") from None
    if not isinstance(config, dict):
        raise _Left("damaged: config.yaml does not hold a configuration")
    return config


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _Left(f"damaged: {name}: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict):
        raise _Left(f"damaged: {name} does not hold a JSON object")
    return data


def _state(folder: Path, status: Mapping[str, Any]) -> str:
    """Where a run without metrics stands, from its status.json and its lock."""
    if not status:
        return "not begun"
    state, step, error = (status.get(key) for key in ("state", "step", "error"))
    if state == "running" and not is_running(folder):
        state = "stale (its process is gone)"
    reason = f": {' '.join(str(error).split())[:160]}" if error else ""
    return f"{state} at step {step}{reason}"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
