"""Dashboard content besides the records: the four axes as tags, tables from the run folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from unipeft_run.runs.folder import read_object
from unipeft_run.runs.reading import UnreadableFile, read_records

ROWS = 500  # predictions shown; the file in the run folder has all of them
LONGEST_TAG = 64  # characters that W&B accepts
SLOTS = ("attn", "ffn", "input", "matrix")
AXES = ("form", "insertion", "representation", "composition")

Table = tuple[list[str], list[list[Any]]]  # column names, rows


def find_axes(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the names of each slot's axes: {"ffn": {"form": "Bottleneck", ...}}."""
    slots = {slot: config.get(slot) for slot in SLOTS}
    return {
        slot: {axis: _axis_name(content.get(axis)) for axis in AXES}
        for slot, content in slots.items()
        if isinstance(content, Mapping) and content.get("form")
    }


def _axis_name(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    if isinstance(sites := value.get("sites"), Sequence):
        return "+".join(map(str, sites))
    return str(value.get("_target_", "")).rpartition(".")[2]


def make_tags(config: Mapping[str, Any]) -> list[str]:
    """Return one tag for each axis of each slot, such as `ffn.form=Bottleneck`."""
    slots = find_axes(config).items()
    tags = [f"{slot}.{axis}={name}" for slot, axes in slots for axis, name in axes.items()]
    return [tag[:LONGEST_TAG] for tag in tags]


def find_tables(folder: Path) -> Iterator[tuple[str, Table]]:
    """Yield the table of parameters by site, then the first predictions of each split."""
    sites = read_object(folder / "parameters.json").get("sites")
    if isinstance(sites, list) and (rows := [row for row in sites if isinstance(row, dict)]):
        yield "parameters", _make_table(rows)
    for path in sorted((folder / "predictions").glob("*.jsonl")):
        if rows := _first_rows(path):
            yield f"predictions/{path.stem}", _make_table(rows)


def _first_rows(path: Path) -> list[dict[str, Any]]:
    try:
        return list(islice(read_records(path), ROWS))
    except UnreadableFile:
        return []


def _make_table(rows: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return columns, [[_make_cell(row.get(column)) for column in columns] for row in rows]


def _make_cell(value: Any) -> Any:
    is_plain = value is None or isinstance(value, str | int | float)
    return value if is_plain else json.dumps(value, ensure_ascii=False)
