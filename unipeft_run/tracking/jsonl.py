"""train.jsonl: one record per line, the source of truth for every dashboard."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unipeft_run.runs.folder import finite, replace_file
from unipeft_run.runs.reading import parse_record, read_records
from unipeft_run.tracking import Record, Tracker

LARGEST_STEP = 10**15


class Jsonl(Tracker):
    """Appends every record to `path`. A resumed run leaves the same file as one never stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, step: int, total: int, evaluated: int | None = None) -> None:
        """Drop the records written after the last checkpoint, and an incomplete last line."""
        if not self._path.exists():
            return
        lines = self._path.read_bytes().splitlines(keepends=True)
        last = step if evaluated is None else evaluated
        kept = [line for line in lines if _is_kept(line, last if _is_evaluation(line) else step)]
        if kept != lines:
            replace_file(self._path, b"".join(kept))

    def log(self, record: Record, step: int) -> None:
        """Append one line and hand it to the operating system; never through a symbolic link."""
        line = json.dumps({"step": step, **finite(record)}, ensure_ascii=False) + "\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(self._path, flags, 0o666), "a", encoding="utf-8") as file:
            file.write(line)


def read_train_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records in `path` that have a step; none if there is no file.

    Raises `UnreadableFile` if the file cannot be read.
    """
    return (record for record in read_records(path) if _has_step(record))


def _is_evaluation(line: bytes) -> bool:
    return b'"validation/' in line


def _is_kept(line: bytes, last: int) -> bool:
    record = parse_record(line) if line.endswith(b"\n") else None
    return record is not None and _has_step(record) and bool(record["step"] <= last)


def _has_step(record: Record) -> bool:
    step = record.get("step")
    return isinstance(step, int) and not isinstance(step, bool) and 0 <= step < LARGEST_STEP
