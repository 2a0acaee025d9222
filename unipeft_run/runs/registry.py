"""The runs there are: read from their folders, and from nothing else. Imports nothing heavy."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from unipeft_run.config.messages import nearest, shown
from unipeft_run.errors import UserError
from unipeft_run.runs.folder import read_object, read_status
from unipeft_run.runs.lock import is_running

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
STATES = ("running", "stale", "done", "failed", "diverged", "damaged")
TAIL = 1 << 16  # bytes of train.jsonl in which the last evaluation is looked for


@dataclass(frozen=True)
class Run:
    """A run folder as it stands.

    `state` as in status.json, but for a run whose process is gone (stale), one whose configuration
    cannot be read (damaged), and one that has metrics.json and whose process is gone: that is done,
    whatever the process came to say, and is not run again. `metric`: its name and value; of the
    test split if the run is done, else of the last evaluation.
    """

    folder: Path
    config: Mapping[str, Any]
    state: str
    step: int
    total: int | None
    seconds_left: float | None
    error: str
    metric: tuple[str, float] | None

    @property
    def label(self) -> str:
        """task/method/run_id."""
        return "/".join(self.folder.absolute().parts[-3:])


def find(root: Path) -> Iterator[Run]:
    """The runs in `root` and below, by name."""
    for path, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "config.yaml" in files or "status.json" in files:
            folders.clear()
            yield read(Path(path))


def read(folder: Path) -> Run:
    """The run in `folder`; nothing is written, and nothing of it executed."""
    config, status = _config(folder / "config.yaml"), read_status(folder)
    metrics = read_object(folder / "metrics.json")
    state = str(status.get("state", "running"))
    if not (state == "running" and is_running(folder)):
        state = "done" if metrics else "stale" if state == "running" else state
    left = status.get("seconds_left") if state == "running" else None
    return Run(
        folder=folder,
        config=config,
        state=state if config and state in STATES else "damaged",
        step=int(status.get("step") or 0),
        total=status.get("total"),
        seconds_left=left,
        error="" if state == "done" else str(status.get("error") or ""),
        metric=_metric(folder, metrics),
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_bytes(), LOADER)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _metric(folder: Path, metrics: Mapping[str, Any]) -> tuple[str, float] | None:
    name = str(metrics.get("primary", ""))
    if isinstance(metrics.get(name), int | float):
        return name, metrics[name]
    for record in reversed(_last_records(folder / "train.jsonl")):
        for key, value in record.items():
            kind, _, rest = key.partition("/")
            number = isinstance(value, int | float)
            if kind == "validation" and number and rest not in ("loss", "seconds"):
                return key, value
    return None


def _last_records(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().splitlines()
    found = (_object(line) for line in lines)
    return [record for record in found if record]


def _object(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def select(runs: Iterable[Run], filters: Sequence[str]) -> list[Run]:
    """The runs that fit every `key=value`; of several values (a,b) or a pattern (lora_*) any.

    A key is one of the configuration (task, seed, ffn.bottleneck), or state, step, run_id.
    Raises `UserError` for a key that no run has.
    """
    there, wanted = list(runs), [_filter(word) for word in filters]
    words = [_words(run) for run in there]
    known = {key for found in words for key in found}
    for key, values in wanted:
        if there and key not in known:
            near = nearest(key, sorted(known))
            hint = f"; did you mean {near}?" if near else ""
            raise UserError(f"no run has a key {shown(key)}{hint}")
        if key == "state" and (odd := [v for v in values if not _any_fits(STATES, v)]):
            raise UserError(f"state={shown(odd[0])} is not known; choose from {', '.join(STATES)}")
    return [
        run
        for run, found in zip(there, words, strict=True)
        if all(any(_fits(found.get(key), value) for value in values) for key, values in wanted)
    ]


def _filter(word: str) -> tuple[str, list[str]]:
    key, equals, values = word.partition("=")
    if not (key and equals):
        raise UserError(f"{shown(word)} is no filter; write key=value, as in task=sst2")
    return key, values.split(",")


def _words(run: Run) -> dict[str, Any]:
    """Every key of the configuration by its dotted name; a section by the `name` in it."""
    own = {"state": run.state, "step": run.step, "run_id": run.folder.name}
    return {**dict(_flat(run.config)), **own}


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield name, value.get("name", "...")
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _any_fits(known: Iterable[str], value: str) -> bool:
    return any(_fits(word, value) for word in known)


def _fits(have: Any, wanted: str) -> bool:
    if have is None or isinstance(have, bool):
        return wanted.lower() == ("null" if have is None else str(have).lower())
    if isinstance(have, int | float):
        try:
            return math.isclose(have, float(wanted))
        except ValueError:
            return fnmatchcase(str(have), wanted)
    return fnmatchcase(str(have), wanted)
