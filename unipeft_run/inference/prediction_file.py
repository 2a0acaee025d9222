"""Write predictions row by row as CSV or JSON Lines; the file is valid at any time."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from unipeft_run.errors import UserError
from unipeft_run.runs.csv_rows import format_rows
from unipeft_run.runs.folder import finite

Format = Literal["csv", "jsonl"]
FORMATS: tuple[Format, ...] = ("csv", "jsonl")


def choose_format(chosen: Format | None, out: Path | None, input_suffix: str) -> Format:
    """Return the chosen format, else that of the name of `out`, else that of the input file.

    Raises UserError if the name of `out` ends in neither .csv nor .jsonl.
    """
    if chosen is not None:
        return chosen
    if out is not None:
        suffix = out.suffix.removeprefix(".")
        for known in FORMATS:
            if suffix == known:
                return known
        raise UserError(f"--out={out}: its name must end in .csv or .jsonl, or give --format")
    return "jsonl" if input_suffix in (".jsonl", ".parquet") else "csv"


class PredictionFile(AbstractContextManager["PredictionFile"]):
    """An open output file, or stdout if `path` is None. A whole chunk of rows is written at once.

    Raises UserError if the file exists, unless `force`, and if it cannot be written.
    """

    def __init__(
        self, path: Path | None, kind: Format, columns: Sequence[str], *, force: bool = False
    ) -> None:
        self.path, self.kind, self.columns, self.rows = path, kind, list(columns), 0
        try:
            self._file = None if path is None else _open(path, force=force)
        except FileExistsError:
            raise UserError(f"--out={path} exists; name another file, or add --force") from None
        except OSError as error:
            raise UserError(f"--out={path} cannot be written: {error.strerror}") from None
        if kind == "csv":
            self._write(self._as_csv([dict(zip(columns, columns, strict=True))]))

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append `rows`."""
        self._write(self._as_csv(rows) if self.kind == "csv" else _as_jsonl(rows))
        self.rows += len(rows)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, text: str) -> None:
        if self._file is None:
            print(text, end="", flush=True)
            return
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise UserError(f"--out={self.path} cannot be written: {error.strerror}") from None

    def _as_csv(self, rows: Iterable[Mapping[str, Any]]) -> str:
        return format_rows([_as_field(row.get(name)) for name in self.columns] for row in rows)


def _open(path: Path, *, force: bool) -> io.FileIO:
    """Open `path` unbuffered, so that rows reach the file in one piece."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    return io.FileIO(os.open(path, flags, 0o666), "w")


def _as_field(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool | dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def _as_jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    lines = (json.dumps(finite(row), ensure_ascii=False, default=str) for row in rows)
    return "".join(f"{line}\n" for line in lines)
