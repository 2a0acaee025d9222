"""Read the records of JSON Lines, CSV and TSV files, plain or gzipped, with line numbers."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from unipeft_run.errors import UserError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LONGEST_FIELD = 2**31 - 1  # the csv module's own limit is 128 KiB
MOST_DIGITS = 4000  # Python refuses to convert more than 4300
Record = Mapping[str, Any]
Records = Iterator[tuple[int, Record]]


def read_records(file: Path) -> Records:
    """Yield line number and record for each non-blank line of `file`.

    Values in CSV and TSV are strings. Raises `UserError` naming file and line.
    """
    zipped = file.suffix == ".gz"
    with _readable(file), gzip.open(file) if zipped else file.open("rb") as lines:
        read = _read_csv if is_csv(file) else _read_json
        yield from read(file, cast("IO[bytes]", lines))


def is_csv(file: Path) -> bool:
    """Return whether `file` is CSV or TSV, in which every value is a string."""
    return file.name.removesuffix(".gz").endswith((".csv", ".tsv"))


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{file} is not a whole gzip file: {error}") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def _decode(file: Path, lines: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Yield number and text of every line, without a byte-order mark."""
    for number, line in enumerate(lines, start=1):
        try:
            text = (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).decode("utf-8")
        except UnicodeDecodeError as error:
            place = f"{file}, line {number}"
            raise UserError(f"{place} is not UTF-8 (byte {error.start + 1})") from error
        yield number, text


def _read_json(file: Path, lines: IO[bytes]) -> Records:
    for number, text in _decode(file, lines):
        if text.strip():
            yield number, _parse_object(text, f"{file}, line {number}")


def _parse_object(text: str, where: str) -> Record:
    try:
        record = json.loads(text, parse_int=parse_integer)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not a whole JSON object: {error.msg}") from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply") from error
    if not isinstance(record, dict):
        raise UserError(f"{where} is not a JSON object: write one object per line")
    return record


def parse_integer(digits: str) -> int | str:
    """Convert to an integer, unless there are more digits than Python converts."""
    return int(digits) if len(digits) <= MOST_DIGITS else digits


def _read_csv(file: Path, lines: IO[bytes]) -> Records:
    """Yield rows as mappings from the header's names. TSV has no quoting, as in GLUE's files."""
    header: list[str] = []
    for number, row in _rows(file, lines):
        where = f"{file}, line {number}"
        if not header:
            header = _header(row, where)
        elif len(row) != len(header):
            raise UserError(f"{where} has {len(row)} fields, but the header has {len(header)}")
        else:
            yield number, dict(zip(header, row, strict=True))


def _rows(file: Path, lines: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line number and the fields of each row that is not blank."""
    tabs = file.name.removesuffix(".gz").endswith(".tsv")
    style: dict[str, Any] = {"quoting": csv.QUOTE_NONE, "delimiter": "\t"} if tabs else {}
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader((text for _, text in _decode(file, lines)), strict=True, **style)
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{file}, line {number} is not valid CSV: {error}") from error
        if row:
            yield number, row


def _header(row: list[str], where: str) -> list[str]:
    names = [name.strip() for name in row]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{where}: the header names column {double!r} twice")
    return names
