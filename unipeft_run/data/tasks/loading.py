"""Reading splits: from a folder of JSON Lines or Parquet, or from the hub; and checking them.

Every route gives the same: a `datasets.Dataset` per split that holds the columns the task reads,
nested ones under a dotted name ("translation.en"). What is wrong is one sentence, with its line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset

from unipeft_run.data.tasks.columns import Columns
from unipeft_run.errors import UserError


def split_file(folder: Path, split: str) -> Path | None:
    """The file of `split` in `folder`: JSON Lines before Parquet, None where neither is there."""
    candidates = [folder / f"{split}{suffix}" for suffix in (".jsonl", ".parquet")]
    return next((file for file in candidates if file.is_file()), None)


def read_folder_split(folder: Path, split: str, columns: Columns, limit: int | None) -> Dataset:
    """The first `limit` examples of `split` in `folder`. Raises `UserError`."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: task.path names a folder with {split}.jsonl in it")
    file = split_file(folder, split)
    if file is None:
        present = ", ".join(sorted(entry.name for entry in folder.iterdir())) or "nothing"
        raise UserError(f"no {split}.jsonl or {split}.parquet in {folder}; there is {present}")
    read = _read_parquet if file.suffix == ".parquet" else _read_jsonl
    return checked(read(file, columns, limit), columns, limit, str(file))


def checked(dataset: Dataset, columns: Columns, limit: int | None, where: str) -> Dataset:
    """The columns and the first `limit` rows of `dataset`. Raises `UserError` naming `where`."""
    dataset = dataset.flatten()
    for name in columns.required:
        if name not in dataset.column_names:
            raise UserError(_missing(where, name, dataset.column_names))
    kept = [
        name for name in dataset.column_names if name in (*columns.required, columns.identifier)
    ]
    dataset = dataset.select_columns(kept)
    if limit is not None and limit < len(dataset):
        dataset = dataset.select(range(limit))
    if len(dataset) == 0:
        raise UserError(f"{where} has no examples")
    table = dataset.with_format("arrow")[:]
    for name in columns.required:
        _check_values(table.column(name), name, columns, where)
    return dataset


def _missing(where: str, name: str, present: list[str]) -> str:
    return f"{where} has no column {name!r}; its columns are {', '.join(present) or 'none'}"


def _check_values(values: pa.ChunkedArray, name: str, columns: Columns, where: str) -> None:
    if values.null_count:
        row = pc.index(pc.is_null(values), True).as_py() + 1
        raise UserError(f"{where}: column {name!r} is empty in row {row}")
    if name != columns.label:
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            raise UserError(f"{where}: column {name!r} holds {values.type}, not text")
        return
    if not pa.types.is_integer(values.type):
        raise UserError(f"{where}: column {name!r} holds {values.type}, not class numbers")
    high = len(columns.labels) - 1
    bad = pc.or_(pc.less(values, 0), pc.greater(values, high))
    if pc.any(bad).as_py():
        row = pc.index(bad, True).as_py()
        meaning = ", ".join(f"{number} {word}" for number, word in enumerate(columns.labels))
        found = f"{where}: label {values[row]} in row {row + 1} is out of range"
        raise UserError(f"{found}; the classes are {meaning}")


def _read_parquet(file: Path, columns: Columns, limit: int | None) -> Dataset:
    del columns, limit  # both are applied by `checked`
    try:
        return Dataset(pq.read_table(file))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is not a readable Parquet file: {error}") from error


def _read_jsonl(file: Path, columns: Columns, limit: int | None) -> Dataset:
    rows: dict[str, list[Any]] = {name: [] for name in columns.required}
    ids: list[str] = []
    for number, row in _records(file, limit):
        where = f"{file}, line {number}"
        for name in columns.required:
            rows[name].append(_pick(row, name, str if name in columns.text else int, where))
        if columns.identifier is not None and columns.identifier in row:
            ids.append(str(row[columns.identifier]))
    if columns.identifier is not None and len(ids) == len(rows[columns.required[0]]):
        rows[columns.identifier] = ids
    return Dataset.from_dict(rows)


def _records(file: Path, limit: int | None) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and object of each line that is not blank, the first `limit` of them."""
    given = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if given == limit:
                return
            if not line.strip():
                continue
            yield number, _record(line, f"{file}, line {number}")
            given += 1


def _record(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 (byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not a whole JSON object: {error.msg}") from error
    if not isinstance(record, dict):
        raise UserError(f"{where} is not a JSON object")
    return record


def _pick(row: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(_missing(where, name, list(_flat_names(row))))
        value = value[part]
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = "text" if kind is str else "a class number"
        raise UserError(f"{where}: column {name!r} holds {json.dumps(value)[:40]}, not {expected}")
    return value


def _flat_names(row: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flat_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
