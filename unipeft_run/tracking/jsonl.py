"""train.jsonl: one record per line, the source of truth for every dashboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unipeft_run.errors import UserError
from unipeft_run.runs.folder import finite
from unipeft_run.runs.reading import UnreadableFile, parse_record, read_bytes, read_records
from unipeft_run.runs.writing import Check, append_text, no_check, replace_file
from unipeft_run.tracking import Record, Tracker

LARGEST = 1 << 30  # bytes of a train.jsonl that can be resumed
LARGEST_STEP = 10**15


class Jsonl(Tracker):
    """Appends every record to `path`. Resumed and uninterrupted runs write the same file."""

    def __init__(self, path: Path, check: Check = no_check) -> None:
        self._path, self._check = path, check

    def begin(self, step: int, total: int, evaluated: int | None = None) -> None:
        """Drop the records written after the last checkpoint, and an incomplete last line."""
        if not self._path.exists():
            return
        try:
            lines = read_bytes(self._path, LARGEST).splitlines(keepends=True)
        except UnreadableFile as error:
            problem = f"the run cannot be resumed: {error}; force=true starts afresh"
            raise UserError(problem) from None
        last = step if evaluated is None else evaluated
        kept = [line for line in lines if _is_kept(line, last if _is_evaluation(line) else step)]
        if kept != lines:
            replace_file(self._path, b"".join(kept), self._check)

    def log(self, record: Record, step: int) -> None:
        """Append one line and flush it to the operating system."""
        line = json.dumps({"step": step, **finite(record)}, ensure_ascii=False) + "\n"
        append_text(self._path, line, self._check)


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
