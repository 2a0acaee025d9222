"""Read tables of images: Parquet with the bytes of image files, or JSON Lines and CSV with names.

In the tables returned here, a column `images` holds a list per example: `{bytes, path}` of one
image or of the frames of a video, with one of the two set. The other columns are those of
`data.tasks.tables.check_table`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.messages import describe_value, missing_column, printable
from unipeft_run.data.tasks.records import read_records
from unipeft_run.data.tasks.split_tables import Checked, Orders, read_files
from unipeft_run.data.tasks.tables import check_table, read_parquet
from unipeft_run.data.tasks.text_files import read_text_file
from unipeft_run.errors import UserError

IMAGES = "images"
IMAGE = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])


def read_image_files(
    files: Sequence[Path], columns: Columns, limit: int | None
) -> tuple[pa.Table, Orders]:
    """Read the first `limit` examples of `files`. Raises `UserError`."""
    return read_files(files, columns, limit, _read_file)


def check_image_table(
    table: pa.Table, columns: Columns, names: Sequence[str] | None, where: str
) -> Checked:
    """Return the columns of the task and the column `images`; see `tables.check_table`."""
    column = find_image_column(table.column_names, columns, where)
    images = _to_lists(table.column(column), column, where)
    checked, in_order = check_table(table.drop_columns([column]), columns, names, where)
    return checked.append_column(IMAGES, images), in_order


def find_image_column(present: Sequence[str], columns: Columns, where: str) -> str:
    """Return the name of the column of images. Raises `UserError` if there is none."""
    assert columns.images is not None
    for name in columns.spellings(columns.images):
        if name in present:
            return name
    key = columns.keys.get(columns.images)
    raise UserError(missing_column(where, columns.images, present, key))


def _read_file(file: Path, columns: Columns, limit: int | None) -> Checked:
    if file.suffix == ".parquet":
        needed = replace(columns, text=(*columns.text, str(columns.images)))
        table, names = read_parquet(file, needed, limit)
        return check_image_table(table, columns, names, str(file))
    table, named = read_text_file(file, columns, limit)
    lists = list(_name_images(file, columns, limit))
    images = pa.array(lists, pa.large_list(IMAGE))
    return table.append_column(IMAGES, images), True if named else None


def _name_images(
    file: Path, columns: Columns, limit: int | None
) -> Iterator[list[dict[str, str | None]]]:
    """Yield the images of each row of `file`, named relative to its folder."""
    for number, record in islice(read_records(file), limit):
        where = f"{file}, line {number}"
        value = record[find_image_column(list(record), columns, where)]
        names = value if isinstance(value, list) else [value]
        if not names:
            raise UserError(f"{where}: column {columns.images!r} is an empty list")
        yield [{"path": str(find_image(file.parent, name, where))} for name in names]


def find_image(folder: Path, name: Any, where: str) -> Path:
    """Return the path of the image `name`, relative to `folder`. Raises `UserError`."""
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: {describe_value(name)} is not the name of an image file")
    path = folder / name
    if not path.is_file():
        raise UserError(f"{where}: there is no image file {printable(str(path), 200)}")
    return path


def _to_lists(values: pa.ChunkedArray, column: str, where: str) -> pa.ChunkedArray:
    """Convert a column of images, or of lists of images, to lists of IMAGE."""
    where = f"{where}: column {column!r}"
    if values.null_count:
        row = pc.index(pc.is_null(values), True).as_py() + 1
        raise UserError(f"{where} has no value in row {row}")
    chunks = [_to_list_array(chunk, where) for chunk in values.chunks]
    return pa.chunked_array(chunks, pa.large_list(IMAGE))


def _to_list_array(values: pa.Array, where: str) -> pa.Array:
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        counts = np.asarray(pc.list_value_length(values), dtype=np.int64)
        images = _to_structs(values.flatten(), where)
    else:
        counts, images = np.ones(len(values), dtype=np.int64), _to_structs(values, where)
    if not counts.all():
        raise UserError(f"{where} is an empty list in row {int(counts.argmin()) + 1}")
    offsets = np.concatenate([[0], counts.cumsum()])
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), images)


def _to_structs(values: pa.Array, where: str) -> pa.Array:
    kind = values.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        values = pc.struct_field(values, "bytes")
    elif not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise UserError(f"{where} holds {printable(str(kind))}, not the bytes of image files")
    if values.null_count:
        raise UserError(f"{where} gives names of image files, but not their bytes")
    paths = pa.nulls(len(values), pa.large_string())
    return pa.StructArray.from_arrays([values.cast(pa.large_binary()), paths], fields=list(IMAGE))
