"""Read the files of one split as a table with the columns of a task. Does not import `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.tables import check_table, read_parquet
from unipeft_run.data.tasks.text_files import read_text_file
from unipeft_run.errors import UserError

# of each file: whether its classes are in the task's order
Orders = tuple[tuple[str, bool | None], ...]
Checked = tuple[pa.Table, bool | None]  # a table, and the same of its file
Reader = Callable[[Path, Columns, int | None], Checked]


def read_text_table(file: Path, columns: Columns, limit: int | None) -> Checked:
    """Read the first `limit` examples of a file."""
    if file.suffix == ".parquet":
        table, names = read_parquet(file, columns, limit)
        return check_table(table, columns, names, str(file))
    table, named = read_text_file(file, columns, limit)
    return table, True if named else None


def read_files(
    files: Sequence[Path], columns: Columns, limit: int | None, read: Reader = read_text_table
) -> tuple[pa.Table, Orders]:
    """Read the first `limit` examples of `files`, each with `read`. Raises `UserError`."""
    tables, orders, count = [], [], 0
    for file in files:
        left = None if limit is None else limit - count
        if left == 0:
            break
        table, in_order = read(file, columns, left)
        tables.append(table)
        orders.append((str(file), in_order))
        count += len(table)
    if count == 0:
        raise UserError(f"{orders[0][0]} has no examples")
    return _join(tables), tuple(orders)


def _join(tables: list[pa.Table]) -> pa.Table:
    """Join the tables of one split; ids are kept only if all tables have them."""
    shared = [
        name for name in tables[0].column_names if all(name in t.column_names for t in tables)
    ]
    parts = [table.select(shared) for table in tables]
    return pa.concat_tables(parts, promote_options="permissive")
