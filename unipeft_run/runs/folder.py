"""The folder of one run, outputs/<task>/<method>/<run_id>/: its files, and writing them safely.

Imports nothing heavy. To read the folder of another process, see `reader`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from unipeft_run.errors import UserError
from unipeft_run.runs.printable import printable
from unipeft_run.runs.reading import UnreadableFile, read_bytes, read_json
from unipeft_run.runs.writing import make_folder, refuse_links, remove, replace_file

State = Literal["running", "interrupted", "done", "failed", "diverged"]

HEARTBEAT_SECONDS = 5.0
CONTENTS = "contents.json"  # hashes of the data, weights and classes of a run
SPLIT = "split.json"  # how the user's own data was divided
PLAN = ("config.yaml", CONTENTS, SPLIT)  # written before training
CONTENT = (
    *PLAN,
    "status.json",
    "metrics.json",
    "train.jsonl",
    "parameters.json",
    "delta.safetensors",
    "delta.json",
    "predictions",
    "checkpoints",
    "wandb",
    "pushed.json",
)
DELTA_FILES = ("delta.safetensors", "delta.json")  # the stored delta of a finished run
ATTEMPT = ".attempt"  # how often the run was started; survives `clear`
CONFIG_KEYS = (b"task", b"method", b"backbone", b"recipe")  # in every config.yaml of a run

log = logging.getLogger(__name__)


class RunFolder:
    """Reads and writes the files of a run folder; creates the folder if it is missing.

    `guard` is called before every write and raises if another process now owns the run.
    `writes=False`: nothing is written, as in all but the main process of a run.
    """

    def __init__(
        self, path: Path, guard: Callable[[], None] | None = None, *, writes: bool = True
    ) -> None:
        make_usable(path, "run")
        self.path = path
        self.guard, self.writes = guard or (lambda: None), writes
        self._last_beat, self._step = -math.inf, 0
        self._pace: tuple[int, float] | None = None  # first step in this process, and its time

    def check(self, path: Path) -> None:
        """Raise if this process has lost the run, or `path` leads through a symbolic link."""
        self.guard()
        refuse_links(self.path, path)

    def status(self) -> dict[str, Any]:
        """Return status.json, as `read_status` does; empty for a new folder."""
        return read_status(self.path)

    def mark(
        self,
        state: State,
        *,
        step: int | None = None,
        total: int | None = None,
        error: str | None = None,
    ) -> None:
        """Record the state in status.json; `step` and `total` default to the recorded values."""
        if not self.writes:
            return
        before = self.status()
        step = max(_count(before.get("step")) or 0, self._step) if step is None else step
        total = _count(before.get("total")) if total is None else total
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = {
            "state": state,
            "step": step,
            "total": total,
            "seconds_left": self._seconds_left(step, total) if state == "running" else None,
            "started": before.get("started") if before else now,
            "heartbeat": now,
            "error": error,
        }
        try:
            self.write_json("status.json", record)
        except OSError:
            if state == "running":
                raise
            self._overwrite_status(record)  # a full disk still lets a file be overwritten
        self._last_beat = time.monotonic()

    def beat(self, step: int, total: int | None = None) -> None:
        """Record that the run is alive at `step`, at most once every few seconds."""
        self._step = step
        if time.monotonic() - self._last_beat >= HEARTBEAT_SECONDS:
            self.mark("running", step=step, total=total)

    def _seconds_left(self, step: int, total: int | None) -> float | None:
        """Extrapolate the pace of this process, evaluations included."""
        now = time.monotonic()
        first, began = self._pace = self._pace or (step, now)
        if total is None or step <= first:
            return None
        return round((now - began) / (step - first) * (total - step), 1)

    def _overwrite_status(self, record: Mapping[str, Any]) -> None:
        path = self.path / "status.json"
        try:
            self.check(path)
            with open(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK), "r+b") as file:
                file.write(json.dumps(finite(record)).encode() + b"\n")
                file.truncate()
        except OSError as problem:
            log.error("the state %s could not be written: %s", record["state"], problem)

    def read_json(self, name: str) -> Any:
        """Return the content of the JSON file `name`."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def write_json(self, name: str, data: Any) -> None:
        """Write `data` as JSON; numbers that are not finite become null."""
        self.write_text(name, json.dumps(finite(data), indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write `text` to the file `name`, completely or not at all."""
        if not self.writes:
            return
        path = self.path / name
        self.check(path)
        make_folder(path.parent)
        replace_file(path, text.encode("utf-8", "backslashreplace"), self.check)

    def write_predictions(self, split: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write predictions/<split>.jsonl, one row a line. Raises `UserError` for a wrong name."""
        if {"/", "\\", "\0"} & set(split) or split.startswith("."):
            raise UserError(f"{split!r} cannot name a split or test: it would name another folder")
        lines = (json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows)
        self.write_text(f"predictions/{split}.jsonl", "".join(lines))

    def withdraw(self) -> None:
        """Remove the files that are written before training, so that the folder is no run."""
        if self.writes:
            self.guard()
            for name in PLAN:
                remove(self.path / name)

    def remove_if_empty(self) -> None:
        """Remove the folder if nothing is in it, as after a refused configuration."""
        if self.writes:
            with suppress(OSError):
                self.path.rmdir()

    def clear(self) -> None:
        """Remove the files of a run, and no others; the next run counts as another attempt.

        Raises `UserError` if the folder has such files but was not written by a run.
        """
        if not self.writes:
            return
        begun = [name for name in CONTENT if os.path.lexists(self.path / name)]
        if begun and not is_run_folder(self.path):
            raise UserError(
                f"{printable(self.path)} holds {begun[0]}, but no config.yaml or status.json "
                "written by a run; it is not cleared: name another folder, or empty it yourself"
            )
        self.guard()
        remove(self.path / "checkpoints")  # first: on a full disk it makes room
        if (self.path / ATTEMPT).is_symlink() or not (self.path / ATTEMPT).is_file():
            remove(self.path / ATTEMPT)
        if begun:
            self.write_text(ATTEMPT, f"{attempt_number(self.path) + 1}\n")
        for name in CONTENT:
            self.guard()
            remove(self.path / name)


def make_usable(path: Path, kind: str) -> None:
    """Create the folder `path` unless it exists. Raises `UserError`; `kind`: what it is called."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        os.scandir(path).close()
    except OSError as error:
        problem = f"{printable(error.filename or path)}: {error.strerror}"
        raise UserError(
            f"the {kind} folder cannot be used: {problem}; choose another place with output=DIR"
        ) from None


def is_run_folder(folder: Path) -> bool:
    """Return whether a run wrote `folder`, judging by status.json, config.yaml or .attempt.

    Damaged files count as long as their keys are readable; symbolic links do not.
    """
    status, config = _content(folder / "status.json"), _content(folder / "config.yaml")
    if all(f'"{key}"'.encode() in status for key in ("state", "step", "heartbeat")):
        return True
    if all(re.search(rb"^" + key + rb":", config, re.MULTILINE) for key in CONFIG_KEYS):
        return True
    return _content(folder / ATTEMPT).strip().isdigit()


def _content(path: Path) -> bytes:
    try:
        return b"" if path.is_symlink() else read_bytes(path)
    except UnreadableFile:
        return b""


def check_has_delta(folder: Path) -> None:
    """Raise UserError unless `folder` holds both files of a stored delta."""
    for name in DELTA_FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no delta of a finished run: {name} is missing")


def read_status(folder: Path) -> dict[str, Any]:
    """Return status.json of a run folder.

    Its keys are state, step, total, seconds_left, started, heartbeat and error.
    """
    return read_object(folder / "status.json")


def attempt_number(folder: Path) -> int:
    """Return how often the run in `folder` was started: 1, and one more for each `clear`."""
    text = _content(folder / ATTEMPT).strip()
    return int(text) if text.isdigit() and len(text) < 10 else 1


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; empty if it is missing, or damaged (with a warning)."""
    try:
        return read_json(path)
    except UnreadableFile as error:
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            log.warning("%s/%s", printable(path.parent), error)
        return {}


def is_finished(folder: Path) -> bool:
    """Return whether the run in `folder` is done."""
    return bool(read_object(folder / "metrics.json"))


def report_finished(folder: Path) -> dict[str, Any]:
    """Print that the run in `folder` is done, and return its metrics; {} if it is not done."""
    metrics = read_object(folder / "metrics.json")
    if metrics:
        print(f"already done: {folder} (force=true starts afresh)")
    return metrics


def finite(data: Any) -> Any:
    """Return `data` with null for every number that JSON cannot express (nan, inf).

    Numbers and arrays of NumPy and torch become Python's.
    """
    if hasattr(data, "tolist"):
        data = data.tolist()
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
