"""Select and order the columns of tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from unipeft_run.config.messages import unknown_choice
from unipeft_run.errors import UserError
from unipeft_run.report.tables import Table


def select_columns(tables: Sequence[Table], names: Sequence[str]) -> list[Table]:
    """Return the tables with the columns `names` in this order; each omits those it lacks.

    Columns are named as in `column_key`, or by their titles. Tables that lack all of them are left
    out. Raises `UserError` for a name that is in no table.
    """
    known = list_columns(tables)
    for name in names:
        if tables and column_key(name) not in known:
            raise UserError(unknown_choice("columns", name, known))
    selected = (_select(table, list(map(column_key, names))) for table in tables)
    return [table for table in selected if table.columns]


def list_columns(tables: Iterable[Table]) -> list[str]:
    """List the names of all columns, for the command line."""
    return list(dict.fromkeys(column_key(name) for table in tables for name in table.columns))


def column_key(title: str) -> str:
    """Return a column's name on the command line: stored_percent for `stored %`."""
    return "_".join(title.replace("%", "percent").split())


def _select(table: Table, keys: Sequence[str]) -> Table:
    titles = {column_key(title): title for title in table.columns}
    kept = [titles[key] for key in dict.fromkeys(keys) if key in titles]
    return replace(table, rows=[{title: row.get(title) for title in kept} for row in table.rows])
