"""Read the columns of a task from a JSON Lines, CSV or TSV file, and check every value."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.labels import LabelError, parse_label, parse_number, parse_word
from unipeft_run.data.tasks.messages import describe_value, missing_column
from unipeft_run.data.tasks.records import Record, is_csv, parse_integer, read_records
from unipeft_run.errors import UserError

MISSING = object()


def read_text_file(file: Path, columns: Columns, limit: int | None) -> tuple[pa.Table, bool]:
    """Read the first `limit` rows of `file`; also return whether all labels are class names.

    Texts are strings, and labels class numbers (words if `columns.labels` is None; floats if
    `columns.numbers`). Ids are included if every row has one. Raises `UserError` with the line of
    the first wrong value.
    """
    rows = _Rows(file, columns)
    for number, record in islice(read_records(file), limit):
        rows.add(record, f"{file}, line {number}")
    return rows.table(), rows.named


class _Rows:
    """The rows read so far, by column."""

    def __init__(self, file: Path, columns: Columns) -> None:
        self.columns, self.csv, self.file = columns, is_csv(file), file
        self.values: dict[str, list[Any]] = {name: [] for name in columns.required}
        self.ids: list[str | None] = []
        self.named = True

    def add(self, record: Record, where: str) -> None:
        for name, values in self.values.items():
            value = _find(record, name, self.columns, str(self.file) if self.csv else where)
            label = name == self.columns.label
            read = _texts if name in self.columns.lists else _text
            values.append(self._label(value, where) if label else read(value, name, where))
        self.ids.append(_id(record.get(self.columns.identifier or "")))

    def _label(self, value: Any, where: str) -> int | str | float:
        labels = self.columns.labels
        if labels and self.csv and value.strip() not in labels:
            value = _as_number(value)
        self.named = self.named and isinstance(value, str)
        try:
            if self.columns.numbers:
                return parse_number(value)
            return parse_word(value) if labels is None else parse_label(value, labels)
        except LabelError as error:
            raise UserError(f"{where}: column {self.columns.label!r} holds {error}") from error

    def table(self) -> pa.Table:
        kinds = dict.fromkeys(self.values, pa.string())
        kinds |= dict.fromkeys(self.columns.lists, pa.list_(pa.string()))
        if self.columns.label is not None and self.columns.labels is not None:
            kinds[self.columns.label] = pa.float64() if self.columns.numbers else pa.int64()
        table = pa.table({name: pa.array(self.values[name], kinds[name]) for name in kinds})
        identifier = self.columns.identifier
        if identifier is None or identifier in kinds or None in self.ids:
            return table
        return table.append_column(identifier, pa.array(self.ids, pa.string()))


def _find(record: Record, name: str, columns: Columns, where: str) -> Any:
    for spelling in columns.spellings(name):
        value: Any = record.get(spelling, MISSING)
        if value is MISSING:
            value = record
            for part in spelling.split("."):
                value = value.get(part, MISSING) if isinstance(value, dict) else MISSING
        if value is not MISSING:
            return value
    raise UserError(missing_column(where, name, list(_names(record)), columns.keys.get(name)))


def _names(record: Record) -> Iterator[str]:
    """Yield the column names of `record`, dotted for one level of nesting."""
    for name, value in record.items():
        if isinstance(value, dict) and value:
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield name


def _as_number(field: str) -> int | str:
    """Convert a CSV field of digits to a number; return any other unchanged."""
    text = field.strip()
    return parse_integer(text) if text.removeprefix("-").isdecimal() else field


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: column {name!r} holds {describe_value(value)}, not text")
    if not _is_unicode(value):
        raise UserError(f"{where}: column {name!r} holds a lone surrogate, which is not text")
    return value


def _texts(value: Any, name: str, where: str) -> list[str]:
    if not isinstance(value, list):
        shown = describe_value(value)
        raise UserError(f"{where}: column {name!r} holds {shown}, not a list of texts")
    return [_text(item, name, where) for item in value]


def _id(value: Any) -> str | None:
    """Return `value` as an identifier, or None if it cannot be one."""
    usable = isinstance(value, str | int) and not isinstance(value, bool)
    return text if usable and _is_unicode(text := str(value)) else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True
