"""train.jsonl: a record a line, the truth from which every other view is drawn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from unipeft_run.runs.folder import finite, replace_file
from unipeft_run.tracking import Record, Tracker


class Jsonl(Tracker):
    """Appends every record to `path`; a run taken up again leaves the file of one never stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, step: int, total: int, evaluated: int | None = None) -> None:
        """Drop what a stopped run wrote after its last checkpoint, and a line cut short."""
        if not self._path.exists():
            return
        lines = self._path.read_bytes().splitlines(keepends=True)
        last = step if evaluated is None else evaluated
        kept = [
            line
            for line in lines
            if line.endswith(b"\n") and _step_of(line) <= (last if _evaluation(line) else step)
        ]
        if kept != lines:
            replace_file(self._path, b"".join(kept))

    def log(self, record: Record, step: int) -> None:
        """Append one line and hand it to the system at once."""
        line = json.dumps({"step": step, **finite(record)}, ensure_ascii=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def records(path: Path) -> list[dict[str, Any]]:
    """The whole lines of the file `path`, in order; none where there is no file."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if _step_of(line) < math.inf]


def _evaluation(line: bytes) -> bool:
    return b'"validation/' in line


def _step_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf
