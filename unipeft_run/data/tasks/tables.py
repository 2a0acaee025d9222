"""Read and check the columns of a task in Arrow tables, from Parquet files or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.labels import (
    LabelError,
    class_names,
    is_numbering,
    parse_label,
    parse_number,
    parse_word,
)
from unipeft_run.data.tasks.messages import missing_column, printable
from unipeft_run.errors import UserError

BATCH_ROWS = 10_000  # rows read at a time
UNLABELLED = -1  # the class number that `datasets` gives to rows without a label


def read_parquet(
    file: Path, columns: Columns, limit: int | None
) -> tuple[pa.Table, Sequence[str] | None]:
    """Read the first `limit` rows of the needed columns of `file`, and its class names if known.

    Other columns may have any type. Raises `UserError`.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            paths = [parquet.schema.column(i).path for i in range(len(parquet.schema))]
            needed = _needed_columns(paths, columns, str(file))
            table = _first_rows(parquet, needed, limit)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = printable((str(error) or type(error).__name__).splitlines()[0], 160)
        raise UserError(f"{file} is not a readable Parquet file: {reason}") from error
    found = next((name for name in columns.label_spellings if name in schema.names), None)
    return table, class_names(schema, found) if found else None


def _needed_columns(paths: Sequence[str], columns: Columns, where: str) -> list[str]:
    """Return the columns to read from a file with the leaf columns `paths`."""
    needed = []
    for column in (*columns.required, columns.identifier):
        spellings = columns.spellings(column) if column else ()
        found = [name for name in spellings if any(f"{p}.".startswith(f"{name}.") for p in paths)]
        if not found and column in columns.required:
            raise UserError(missing_column(where, column, paths, columns.keys.get(column)))
        needed += found
    return needed


def _first_rows(parquet: pq.ParquetFile, needed: list[str], limit: int | None) -> pa.Table:
    batches, count = [], 0
    size = min(limit or BATCH_ROWS, BATCH_ROWS)
    for batch in parquet.iter_batches(batch_size=size, columns=needed):
        batches.append(batch)
        count += len(batch)
        if limit is not None and count >= limit:
            break
    if not batches:
        return parquet.read_row_groups([], columns=needed)
    table = pa.Table.from_batches(batches)
    return table if limit is None else table.slice(0, limit)


def _flatten(table: pa.Table) -> pa.Table:
    """Replace nested columns by their fields, with dotted names."""
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    return table


def check_table(
    table: pa.Table, columns: Columns, names: Sequence[str] | None, where: str
) -> tuple[pa.Table, bool | None]:
    """Return the columns of the task, and whether class numbers are in the task's order.

    Texts become strings, labels the task's class numbers (words if `columns.labels` is None, floats
    if `columns.numbers`). `names` are the class names recorded for `table`; without them the order
    is unknown (None). Raises `UserError`.
    """
    table, checked = _flatten(table), {}
    in_order: bool | None = True
    for name in columns.required:
        values = _decoded(_column(table, name, columns, where))
        if values.null_count:
            row = pc.index(pc.is_null(values), True).as_py() + 1
            raise UserError(f"{where}: column {name!r} has no value in row {row}")
        if name == columns.label and columns.numbers:
            checked[name] = _numbers(values, name, where)
        elif name == columns.label:
            checked[name] = _classes(values, columns, names, where)
            in_order = _is_in_order(values, columns, names)
        elif name in columns.lists:
            checked[name] = _lists(values, name, where)
        else:
            checked[name] = _texts(values, name, where)
    identifier = columns.identifier
    if identifier in table.column_names and identifier not in checked:
        checked |= _ids(table, identifier)
    return pa.table(checked), in_order


def _column(table: pa.Table, name: str, columns: Columns, where: str) -> pa.ChunkedArray:
    for spelling in columns.spellings(name):
        if spelling in table.column_names:
            return table.column(table.column_names.index(spelling))
    raise UserError(missing_column(where, name, table.column_names, columns.keys.get(name)))


def _decoded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decode dictionary-encoded text and integers, and string views."""
    kind = values.type
    if pa.types.is_dictionary(kind) and (_is_text(kind.value_type) or _is_integer(kind.value_type)):
        values = values.cast(kind.value_type)
    return values.cast(pa.large_string()) if pa.types.is_string_view(values.type) else values


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_integer(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind))


def _texts(values: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    if not _is_text(values.type):
        raise UserError(f"{where}: column {name!r} holds {printable(str(values.type))}, not text")
    if not _is_utf8(values):
        raise UserError(f"{where}: column {name!r} is not UTF-8 throughout")
    return values


def _lists(values: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """Return a column of lists of texts. Raises `UserError`."""
    kind = values.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise UserError(f"{where}: column {name!r} holds {printable(str(kind))}, not lists of text")
    texts = _decoded(pc.list_flatten(values))
    if texts.null_count:
        raise UserError(f"{where}: column {name!r} has a list with an empty value")
    _texts(texts, name, where)
    return values


def _is_utf8(values: pa.ChunkedArray) -> bool:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _classes(
    values: pa.ChunkedArray, columns: Columns, names: Sequence[str] | None, where: str
) -> pa.Array:
    if _is_text(values.type):
        _texts(values, str(columns.label), where)
    elif not _is_integer(values.type) and not pa.types.is_boolean(values.type):
        kind = printable(str(values.type))
        raise UserError(
            f"{where}: column {columns.label!r} holds {kind}, not class numbers or names"
        )
    labels = columns.labels
    encoded = values.combine_chunks().dictionary_encode()
    classes: list[int | str] = []
    for code, value in enumerate(encoded.dictionary.to_pylist()):
        try:
            name = _named(value, names)
            classes.append(parse_word(name) if labels is None else parse_label(name, labels))
        except LabelError as error:
            row = pc.index(encoded.indices, code).as_py() + 1
            raise UserError(
                f"{where}, row {row}: column {columns.label!r} holds {error}"
            ) from error
    kind = pa.string() if labels is None else pa.int64()
    return pa.array(classes, kind).take(encoded.indices)


def _numbers(values: pa.ChunkedArray, name: str, where: str) -> pa.Array:
    """Return the labels as float64. Raises `UserError` for one that is not a finite number."""
    numbers = []
    for row, value in enumerate(values.to_pylist(), start=1):
        try:
            numbers.append(parse_number(value))
        except LabelError as error:
            raise UserError(f"{where}, row {row}: column {name!r} holds {error}") from error
    return pa.array(numbers, pa.float64())


def _named(value: Any, names: Sequence[str] | None) -> Any:
    """Return the recorded class name of the number `value`, or `value` without such names.

    Raises `LabelError` for the number of rows without a label.
    """
    if names is None or not isinstance(value, int):
        return value
    if value == UNLABELLED:
        raise LabelError(f"{value}, which means that the row has no label")
    return names[value] if 0 <= value < len(names) and not is_numbering(names) else value


def is_unlabelled(values: pa.ChunkedArray, names: Sequence[str] | None) -> bool:
    """Return whether no row of a column of classes with recorded `names` has a label."""
    return names is not None and len(values) > 0 and pc.max(values).as_py() in (None, UNLABELLED)


def is_unlabelled_file(file: Path, label: str) -> bool:
    """Return whether no row of a Parquet file has a label in the column `label` of named classes.

    False for a file that cannot be read, which is reported when it is loaded.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            names = class_names(parquet.schema_arrow, label)
            if names is None or label not in parquet.schema_arrow.names:
                return False
            return is_unlabelled(parquet.read([label]).column(label), names)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return False


def _is_in_order(
    values: pa.ChunkedArray, columns: Columns, names: Sequence[str] | None
) -> bool | None:
    if _is_text(values.type) or columns.labels is None:
        return True
    if names is None or is_numbering(names):
        return None
    own = [label.casefold() for label in columns.labels]
    return [name.strip().casefold() for name in names][: len(own)] == own


def _ids(table: pa.Table, identifier: str | None) -> dict[str, pa.ChunkedArray]:
    """Return the column of identifiers as strings; {} if it is not usable as such."""
    values = _decoded(table.column(table.column_names.index(identifier)))
    usable = _is_integer(values.type) or (_is_text(values.type) and _is_utf8(values))
    return {str(identifier): values.cast(pa.string())} if usable and not values.null_count else {}
