"""The folder of one run, outputs/<task>/<method>/<run_id>/: what is in it, and writing it safely.

Every file is written under another name beside its place, synced and renamed, so a file that is
there is whole whenever the process or the machine stopped. Imports nothing heavy.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

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
)


class RunFolder:
    """Reads and writes the files of a run folder; makes the folder where it is missing."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._last_beat = -math.inf

    def status(self) -> dict[str, Any]:
        """The content of status.json: state, step, heartbeat, error; empty for a new folder."""
        if not (self.path / "status.json").exists():
            return {}
        status: dict[str, Any] = self.read_json("status.json")
        return status

    def mark(self, state: State, *, step: int | None = None, error: str | None = None) -> None:
        """Write the state down; without `step` the step that stands there is kept."""
        step = self.status().get("step", 0) if step is None else step
        heartbeat = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"state": state, "step": step, "heartbeat": heartbeat, "error": error}
        self.write_json("status.json", record)
        self._last_beat = time.monotonic()

    def beat(self, step: int) -> None:
        """Say that the run is alive at `step`; writes at most every few seconds."""
        if time.monotonic() - self._last_beat >= HEARTBEAT_SECONDS:
            self.mark("running", step=step)

    def read_json(self, name: str) -> Any:
        """The content of the JSON file `name`."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def write_json(self, name: str, data: Any) -> None:
        """Write `data` as JSON; numbers that are not finite become null."""
        self.write_text(name, json.dumps(finite(data), indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write `text` to the file `name`, all of it or nothing."""
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        replace_file(path, text.encode())

    def write_predictions(self, split: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write predictions/<split>.jsonl, one row a line."""
        lines = (json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows)
        self.write_text(f"predictions/{split}.jsonl", "".join(lines))

    def clear(self) -> None:
        """Remove what a run writes, and nothing else."""
        for name in CONTENT:
            remove(self.path / name)


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one go: written aside, synced, renamed."""
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_bytes(data)
        sync(aside)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
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
