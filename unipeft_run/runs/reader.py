"""Find run folders and read them: used by unipeft runs, unipeft report, replay and export.

    runs = find_runs([Path("outputs")])        # every run in and below, each real folder once
    run = read_run(Path("outputs/sst2/mam/ab12cd34"))

A run folder is untrusted data: nothing in it is executed, every read is bounded, and a damaged file
becomes a sentence in `RunRecord.problems`, never an exception. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from unipeft_run.runs.folder import CONTENTS
from unipeft_run.runs.lock import is_running
from unipeft_run.runs.printable import printable
from unipeft_run.runs.reading import (
    UnreadableFile,
    parse_record,
    read_json,
    read_last_lines,
    read_records,
    read_yaml,
)
from unipeft_run.runs.search import search

STATES = ("running", "interrupted", "stale", "done", "failed", "diverged", "damaged")
RECORDED_STATES = ("running", "interrupted", "done", "failed", "diverged")  # in status.json
NO_METRICS = "status.json says done, but there are no metrics; the same command completes the run"
TAIL = 1 << 16  # bytes of train.jsonl searched for the last evaluation
LARGEST_STEP = 10**15
# required in metrics.json for a run to be tabulated
STRINGS = ("task", "method", "scale", "backbone", "run_id", "primary")
NUMBERS = ("seed", "parameters/trained", "parameters/stored", "parameters/stored_percent")


@dataclass(frozen=True)
class RunRecord:
    """A run folder as read.

    `state`: as in status.json, except `stale` (its process is gone), `damaged` (its
    configuration cannot be read, or it was done and its metrics cannot), and `done` for every run
    with metrics.json that is not running.
    `metric`: name and value, of the test split if the run is done, else of the last evaluation.
    `problems`: one sentence for each file that cannot be read. `contents`: hashes of the data, the
    weights and the classes that the run used. All strings here are printable; the values in
    `config`, `metrics`, `status` and `contents` are not (see `printable`).
    """

    folder: Path
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    status: Mapping[str, Any]
    state: str
    step: int
    total: int | None
    seconds_left: float | None
    error: str
    metric: tuple[str, float] | None
    problems: tuple[str, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The run's name on screen: task/method/run_id, printable."""
        return printable("/".join(self.folder.absolute().parts[-3:]))

    @property
    def started(self) -> datetime | None:
        """The local time at which the run was first started; None if it is not recorded."""
        return _as_time(self.status.get("started"))

    @property
    def last_beat(self) -> datetime | None:
        """The local time at which the run last wrote its state."""
        return _as_time(self.status.get("heartbeat"))

    @cached_property
    def cell(self) -> str:
        """The run id of the configuration with the seed ignored: all seeds of a cell share it.

        Runs on other data, weights or classes differ, even at the same paths; runs on the same ones
        at other paths do not. Raises KeyError, TypeError or AttributeError if the configuration is
        incomplete.
        """
        from unipeft_run.config.identity import hash_config, scientific_config
        from unipeft_run.config.stored import upgrade

        config = scientific_config(upgrade({**self.settings, "seed": 0}))
        return hash_config({**config, CONTENTS: dict(self.contents) or None})

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration with hashes in place of the paths of local data and weights."""
        from unipeft_run.config.contents import replace_paths

        return replace_paths(self.config, self.contents)

    @property
    def reason_left_out(self) -> str:
        """The reason why this run cannot be tabulated; empty if it can."""
        if self.problems and (self.metrics or self.state != "running"):
            return self.problems[0]
        if not self.metrics:
            return _unfinished(self)
        missing = [name for name in STRINGS if not isinstance(self.metrics.get(name), str)]
        missing += [name for name in NUMBERS if not is_number(self.metrics.get(name))]
        if missing or self.metrics["primary"] not in self.metrics:
            names = ", ".join(missing) or printable(self.metrics["primary"], 60)
            return f"damaged: metrics.json lacks {names}"
        try:
            self.cell, self.config["backbone"]["weights"], self.config["task"]["name"]
        except (KeyError, TypeError, AttributeError, ValueError):
            return "damaged: config.yaml does not hold a whole configuration"
        return ""

    def train_records(self) -> Iterator[dict[str, Any]]:
        """Yield the records of train.jsonl that have a valid `step`, in file order.

        Raises `UnreadableFile` if the file exists but cannot be read.
        """
        for record in read_records(self.folder / "train.jsonl"):
            if _as_step(record.get("step")) is not None:
                yield record

    def predictions(self, split: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of predictions/<split>.jsonl; none if there is no such file.

        Raises `UnreadableFile` if the file exists but cannot be read.
        """
        return read_records(self.folder / "predictions" / f"{split}.jsonl")


def find_runs(folders: Iterable[Path]) -> Iterator[RunRecord]:
    """Yield every run in and below `folders` sorted by name, each real folder once.

    Symbolic links to folders are followed. A folder that cannot be listed is a damaged run.
    """
    for found in search(folders):
        yield damaged_run(found.path, found.problem) if found.problem else read_run(found.path)


def read_run(folder: Path) -> RunRecord:
    """Read the run in `folder`; writes and executes nothing, never raises for damaged content."""
    problems: list[str] = []
    config = _read(read_yaml, folder / "config.yaml", problems, required=True)
    status = _read(read_json, folder / "status.json", problems)
    metrics = _read(read_json, folder / "metrics.json", problems)
    contents = _read(read_json, folder / CONTENTS, [])  # damaged: only a check is lost
    state = _state(folder, config, status, metrics)
    error = "" if state in ("running", "done") else _as_line(status.get("error"))
    if state == "damaged" and problems:
        error = problems[0]
    elif state == "damaged" and status.get("state") == "done":
        error = NO_METRICS
    return RunRecord(
        folder=folder,
        config=config,
        metrics=metrics,
        status=status,
        state=state,
        step=_as_step(status.get("step")) or 0,
        total=_as_step(status.get("total")),
        seconds_left=_as_seconds(status.get("seconds_left")) if state == "running" else None,
        error=error,
        metric=_metric(folder, metrics),
        problems=tuple(problems),
        contents={key: value for key, value in contents.items() if isinstance(value, str)},
    )


def damaged_run(folder: Path, problem: str) -> RunRecord:
    """Return the record of a folder in which nothing can be read."""
    return RunRecord(folder, {}, {}, {}, "damaged", 0, None, None, problem, None, (problem,))


def is_number(value: Any) -> bool:
    """Return whether `value` is an int or float; booleans are not numbers here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read(read: Any, path: Path, problems: list[str], *, required: bool = False) -> dict[str, Any]:
    try:
        return dict(read(path))
    except UnreadableFile as problem:
        missing = isinstance(problem.__cause__, FileNotFoundError)
        if missing and required:
            problems.append(f"there is no {path.name}")
        elif not missing:
            problems.append(str(problem))
        return {}


def _state(
    folder: Path, config: Mapping[str, Any], status: Mapping[str, Any], metrics: Mapping[str, Any]
) -> str:
    recorded = status.get("state", "running")
    if (recorded == "running" or not metrics) and is_running(folder):
        # while a run prepares, its folder has no config.yaml, or the state of its last attempt
        return "running"
    if not config:
        return "damaged"
    if metrics:
        return "done"
    known = isinstance(recorded, str) and recorded in RECORDED_STATES and recorded != "done"
    return "stale" if recorded == "running" else recorded if known else "damaged"


def _unfinished(run: RunRecord) -> str:
    """Describe briefly why a run has no metrics yet."""
    if not run.status and run.state != "running":
        return "not begun"
    state = "stale (its process is gone)" if run.state == "stale" else run.state
    reason = f": {run.error[:160]}" if run.error else ""
    return f"{state} at step {run.step}{reason}"


def _as_step(value: Any) -> int | None:
    """Return `value` as an int if it is a plausible number of updates, else None."""
    whole = is_number(value) and value == int(value) and 0 <= value < LARGEST_STEP
    return int(value) if whole else None


def _as_seconds(value: Any) -> float | None:
    return float(value) if is_number(value) and 0 <= value < LARGEST_STEP else None


def _as_time(value: Any) -> datetime | None:
    """Return an ISO date and time in local time; None for any other value."""
    try:
        return datetime.fromisoformat(value).astimezone()
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _as_line(value: Any) -> str:
    return printable(" ".join(value.split()), 500) if isinstance(value, str) else ""


def _metric(folder: Path, metrics: Mapping[str, Any]) -> tuple[str, float] | None:
    name = metrics.get("primary")
    if isinstance(name, str) and is_number(metrics.get(name)):
        return printable(name, 60), metrics[name]
    if metrics:
        return None
    for line in reversed(read_last_lines(folder / "train.jsonl", TAIL)):
        if b'"validation/' not in line:
            continue
        for key, value in (parse_record(line) or {}).items():
            kind, _, rest = key.partition("/")
            if kind == "validation" and is_number(value) and rest not in ("loss", "seconds"):
                return printable(key, 60), value
    return None
