"""What dashboards get beside the numbers: the four axes, and tables from the run folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unipeft_run.runs.folder import read_object

ROWS = 500  # of predictions; the file in the run folder has them all
SLOTS, AXES = ("attn", "ffn", "input"), ("form", "insertion", "representation", "composition")

Table = tuple[list[str], list[list[Any]]]  # names of the columns, rows


def axes(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Slot to axis to value, in words: {"ffn": {"form": "Bottleneck", ...}}."""
    slots = {slot: config.get(slot) for slot in SLOTS}
    return {
        slot: {axis: _word(content.get(axis)) for axis in AXES}
        for slot, content in slots.items()
        if content and content.get("form")
    }


def _word(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    if "sites" in value:
        return "+".join(value["sites"])
    return str(value.get("_target_", "")).rpartition(".")[2]


def tags(config: Mapping[str, Any]) -> list[str]:
    """One for each axis of each slot, as in `ffn.form=Bottleneck`."""
    words = axes(config).items()
    return [f"{slot}.{axis}={word}"[:64] for slot, found in words for axis, word in found.items()]


def tables(folder: Path) -> Iterator[tuple[str, Table]]:
    """The parameters by site, and the first predictions of each split."""
    if sites := read_object(folder / "parameters.json").get("sites"):
        yield "parameters", _table(sites)
    for path in sorted((folder / "predictions").glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line, _ in zip(lines, range(ROWS), strict=False)]
        if rows:
            yield f"predictions/{path.stem}", _table(rows)


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return columns, [[_cell(row.get(column)) for column in columns] for row in rows]


def _cell(value: Any) -> Any:
    plain = value is None or isinstance(value, str | int | float)
    return value if plain else json.dumps(value, ensure_ascii=False)
