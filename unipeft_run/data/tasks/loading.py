"""Load splits from a folder or from the hub, as data sets with the columns of a task.

Columns are strings, class numbers and, if the data has them, ids. Nested columns have dotted names
("translation.en").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Dataset

from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.labels import check_order
from unipeft_run.data.tasks.source import Limits
from unipeft_run.data.tasks.split_files import SUFFIXES, require_split_files
from unipeft_run.data.tasks.tables import check_table, read_parquet
from unipeft_run.data.tasks.text_files import read_text_file
from unipeft_run.errors import UserError


@dataclass(frozen=True)
class LoadedSplit:
    """One split, with the place of each file and whether its classes are in the task's order."""

    dataset: Dataset
    orders: tuple[tuple[str, bool | None], ...]


def load_folder(
    folder: Path, splits: Iterable[str], columns: Columns, limits: Limits
) -> dict[str, Dataset]:
    """Load the first rows of each of `splits` in `folder`. Raises `UserError`."""
    loaded = {
        split: read_folder_split(folder, split, columns, limits.get(split)) for split in splits
    }
    return _with_checked_order(loaded)


def load_datasets(
    datasets: dict[str, tuple[str, Dataset]], columns: Columns, limits: Limits
) -> dict[str, Dataset]:
    """Load the first rows of each data set, given with its place. Raises `UserError`."""
    loaded = {
        split: _check_dataset(dataset, columns, limits.get(split), where)
        for split, (where, dataset) in datasets.items()
    }
    return _with_checked_order(loaded)


def load_file(file: Path, columns: Columns) -> Dataset:
    """Load all rows of one file. Raises `UserError`."""
    if not file.name.endswith(SUFFIXES):
        raise UserError(f"{file}: its name must end in one of {', '.join(SUFFIXES)}")
    table, in_order = _read_file(file, columns, None)
    check_order([(str(file), in_order)])
    if len(table) == 0:
        raise UserError(f"{file} has no examples")
    return _dataset([table])


def _with_checked_order(loaded: dict[str, LoadedSplit]) -> dict[str, Dataset]:
    check_order([order for split in loaded.values() for order in split.orders])
    return {name: split.dataset for name, split in loaded.items()}


def read_folder_split(folder: Path, split: str, columns: Columns, limit: int | None) -> LoadedSplit:
    """Read the first `limit` examples of `split` in `folder`. Raises `UserError`."""
    tables, orders, count = [], [], 0
    for file in require_split_files(folder, split):
        left = None if limit is None else limit - count
        if left == 0:
            break
        table, in_order = _read_file(file, columns, left)
        tables.append(table)
        orders.append((str(file), in_order))
        count += len(table)
    if count == 0:
        raise UserError(f"{orders[0][0]} has no examples")
    return LoadedSplit(_dataset(tables), tuple(orders))


def _read_file(file: Path, columns: Columns, limit: int | None) -> tuple[pa.Table, bool | None]:
    if file.suffix == ".parquet":
        table, names = read_parquet(file, columns, limit)
        return check_table(table, columns, names, str(file))
    table, named = read_text_file(file, columns, limit)
    return table, True if named else None


def _check_dataset(
    dataset: Dataset, columns: Columns, limit: int | None, where: str
) -> LoadedSplit:
    feature = dataset.features.get(columns.label) if columns.label else None
    names = feature.names if isinstance(feature, ClassLabel) else None
    if limit is not None and limit < len(dataset):
        dataset = dataset.select(range(limit))
    if len(dataset) == 0:
        raise UserError(f"{where} has no examples")
    table, in_order = check_table(dataset.with_format("arrow")[:], columns, names, where)
    return LoadedSplit(_dataset([table]), ((where, in_order),))


def _dataset(tables: list[pa.Table]) -> Dataset:
    """Join the tables of one split; ids are kept only if all tables have them."""
    shared = [
        name for name in tables[0].column_names if all(name in t.column_names for t in tables)
    ]
    parts = [table.select(shared) for table in tables]
    return Dataset(pa.concat_tables(parts, promote_options="permissive"))
