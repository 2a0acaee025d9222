"""The folder of one run, outputs/<task>/<method>/<run_id>/: what is in it, and writing it safely.

Every file is written under another name beside its place, synced and renamed, so a file that is
there is whole whenever the process or the machine stopped. Imports nothing heavy.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from unipeft_run.errors import UserError

State = Literal["running", "done", "failed", "diverged"]

HEARTBEAT_SECONDS = 5.0
CONTENT = (
    "config.yaml",
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
ATTEMPT = ".attempt"  # how often the run was begun; stays where what it wrote goes

log = logging.getLogger(__name__)


class RunFolder:
    """Reads and writes the files of a run folder; makes the folder where it is missing.

    `guard` is called before every write, and raises where the folder is another process's now.
    Without `writes` nothing is written: of several processes of one run, only one does.
    """

    def __init__(
        self, path: Path, guard: Callable[[], None] | None = None, *, writes: bool = True
    ) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            os.scandir(path).close()
        except OSError as error:
            problem = f"{error.filename or path}: {error.strerror}"
            raise UserError(f"the run folder cannot be used: {problem}; see output=DIR") from None
        self.path = path
        self.guard, self.writes = guard or (lambda: None), writes
        self._last_beat, self._step = -math.inf, 0
        self._pace: tuple[int, float] | None = None  # the first step seen here, and when

    def status(self) -> dict[str, Any]:
        """The content of status.json: state, step, heartbeat, error; empty for a new folder."""
        return read_status(self.path)

    def mark(
        self,
        state: State,
        *,
        step: int | None = None,
        total: int | None = None,
        error: str | None = None,
    ) -> None:
        """Write the state down; without `step` and `total` those that stand there are kept."""
        if not self.writes:
            return
        before = self.status()
        step = max(before.get("step") or 0, self._step) if step is None else step
        total = before.get("total") if total is None else total
        record = {
            "state": state,
            "step": step,
            "total": total,
            "seconds_left": self._seconds_left(step, total) if state == "running" else None,
            "heartbeat": datetime.now(UTC).isoformat(timespec="seconds"),
            "error": error,
        }
        try:
            self.write_json("status.json", record)
        except OSError:
            if state == "running":
                raise
            self._overwrite_status(record)  # a disk that is full has room where a file was
        self._last_beat = time.monotonic()

    def beat(self, step: int, total: int | None = None) -> None:
        """Say that the run is alive at `step`; writes at most every few seconds."""
        self._step = step
        if time.monotonic() - self._last_beat >= HEARTBEAT_SECONDS:
            self.mark("running", step=step, total=total)

    def _seconds_left(self, step: int, total: int | None) -> float | None:
        """At the pace since this process began, evaluations included."""
        now = time.monotonic()
        first, began = self._pace = self._pace or (step, now)
        if total is None or step <= first:
            return None
        return round((now - began) / (step - first) * (total - step), 1)

    def _overwrite_status(self, record: Mapping[str, Any]) -> None:
        try:
            with (self.path / "status.json").open("r+b") as file:
                file.write(json.dumps(finite(record)).encode() + b"\n")
                file.truncate()
        except OSError as problem:
            log.error("the state %s could not be written: %s", record["state"], problem)

    def read_json(self, name: str) -> Any:
        """The content of the JSON file `name`."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def write_json(self, name: str, data: Any) -> None:
        """Write `data` as JSON; numbers that are not finite become null."""
        self.write_text(name, json.dumps(finite(data), indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write `text` to the file `name`, all of it or nothing."""
        if not self.writes:
            return
        self.guard()
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        replace_file(path, text.encode())

    def write_predictions(self, split: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write predictions/<split>.jsonl, one row a line."""
        lines = (json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows)
        self.write_text(f"predictions/{split}.jsonl", "".join(lines))

    def clear(self) -> None:
        """Remove what a run writes, and nothing else; what comes next is another attempt."""
        if not self.writes:
            return
        begun = any((self.path / name).exists() for name in CONTENT)
        remove(self.path / "checkpoints")  # first: on a full disk it makes room
        if begun:
            self.write_text(ATTEMPT, f"{attempt(self.path) + 1}\n")
        for name in CONTENT:
            remove(self.path / name)


def read_status(folder: Path) -> dict[str, Any]:
    """status.json of a run folder: state, step, total, seconds_left, heartbeat, error."""
    return read_object(folder / "status.json")


def attempt(folder: Path) -> int:
    """How often the run in `folder` was begun: 1, and one more whenever it was cleared."""
    path = folder / ATTEMPT
    return int(path.read_text()) if path.exists() else 1


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file `path`; empty where there is none, with a warning if damaged."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read: %s", path, error)
        return {}
    return content if isinstance(content, dict) else {}


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one go: written aside, synced, renamed."""
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_bytes(data)
        sync(aside)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # a write that fails does not say where
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the file, or the names in the folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def finite(data: Any) -> Any:
    """`data` with null for every number that JSON cannot say (nan, inf)."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data
