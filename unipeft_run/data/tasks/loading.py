"""Load splits from a folder or from the hub, as data sets with the columns of a task.

Columns are strings, class numbers and, if the data has them, ids. Nested columns have dotted names
("translation.en").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Dataset

from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.labels import check_order
from unipeft_run.data.tasks.source import Limits
from unipeft_run.data.tasks.split_files import SUFFIXES, require_split_files
from unipeft_run.data.tasks.split_tables import Orders, read_files
from unipeft_run.data.tasks.tables import check_table, is_unlabelled
from unipeft_run.errors import UserError


@dataclass(frozen=True)
class LoadedSplit:
    """One split, with the place of each file and whether its classes are in the task's order."""

    dataset: Dataset
    orders: Orders


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
    table, orders = read_files([file], columns, None)
    check_order(orders)
    return Dataset(table)


def _with_checked_order(loaded: dict[str, LoadedSplit]) -> dict[str, Dataset]:
    check_order([order for split in loaded.values() for order in split.orders])
    return {name: split.dataset for name, split in loaded.items()}


def read_folder_split(folder: Path, split: str, columns: Columns, limit: int | None) -> LoadedSplit:
    """Read the first `limit` examples of `split` in `folder`. Raises `UserError`."""
    table, orders = read_files(require_split_files(folder, split), columns, limit)
    return LoadedSplit(Dataset(table), orders)


def _check_dataset(
    dataset: Dataset, columns: Columns, limit: int | None, where: str
) -> LoadedSplit:
    table, in_order = read_dataset(dataset, columns, limit, where)
    return LoadedSplit(Dataset(table), ((where, in_order),))


def read_dataset(
    dataset: Dataset, columns: Columns, limit: int | None, where: str
) -> tuple[pa.Table, bool | None]:
    """Read the first `limit` examples of a data set as `check_table` does. Raises `UserError`."""
    names = recorded_names(dataset, columns.label_spellings)
    if limit is not None and limit < len(dataset):
        dataset = dataset.select(range(limit))
    if len(dataset) == 0:
        raise UserError(f"{where} has no examples")
    return check_table(dataset.with_format("arrow")[:], columns, names, where)


def is_unlabelled_dataset(dataset: Dataset, label: str) -> bool:
    """Return whether no row of `dataset` has a label in the column `label` of named classes."""
    names = recorded_names(dataset, [label])
    if names is None:
        return False
    table = dataset.select_columns([label]).with_format("arrow")[:]
    return is_unlabelled(table.column(label), names)


def recorded_names(dataset: Dataset, spellings: Sequence[str]) -> list[str] | None:
    """Return the class names recorded for the first of the columns `spellings` that is there."""
    feature = next((dataset.features[name] for name in spellings if name in dataset.features), None)
    return feature.names if isinstance(feature, ClassLabel) else None
