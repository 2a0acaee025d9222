"""Find held-out splits without labels, as benchmarks publish their test splits."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache

from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.found_data import FileSplit, SplitData
from unipeft_run.data.tasks.records import read_records
from unipeft_run.errors import UserError

NO_LABEL = "-1"


def find_unlabelled(splits: Mapping[str, SplitData], label: str) -> tuple[str, ...]:
    """Return the held-out splits in which no row has a label in the column `label`.

    The class of such rows is -1. Where the data records no names of its classes, -1 may be a class
    itself; it means "no label" if all rows of a held-out split have it and no training example has.
    """
    held_out = {split: data for split, data in splits.items() if split != "train"}
    train = splits.get("train")
    return tuple(
        split
        for split, data in held_out.items()
        if data.is_unlabelled(label) or (train is not None and _lacks_labels(data, train, label))
    )


def _lacks_labels(data: SplitData, train: SplitData, label: str) -> bool:
    if not _starts_unlabelled(data, label):  # the first row decides almost always
        return False
    return _compare(data, train, label, (data.fingerprint(), train.fingerprint()))


def _starts_unlabelled(data: SplitData, label: str) -> bool:
    if isinstance(data, FileSplit) and data.files[0].suffix != ".parquet":  # without pyarrow
        with suppress(UserError):
            _, record = next(read_records(data.files[0]), (0, {}))
            if label in record:
                return str(record[label]).strip() == NO_LABEL
    return _words(data, label, 1) == {NO_LABEL}


@lru_cache(maxsize=64)
def _compare(data: SplitData, train: SplitData, label: str, contents: object) -> bool:
    """Read both splits. `contents`: their hashes, since files may change in a long process."""
    del contents
    trained = _words(train, label, None)
    return _words(data, label, None) == {NO_LABEL} and bool(trained) and NO_LABEL not in trained


def _words(data: SplitData, label: str, limit: int | None) -> set[str]:
    """Return the labels of the first rows; none if they are wrong, which loading will report."""
    try:
        table, _ = data.read(Columns((), label, labels=None), limit)
    except UserError:
        return set()
    return set(table.column(label).to_pylist())
