"""Rows of the data sets and the JSON files they are stored in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_jsonl(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_splits(folder: Path, splits: Mapping[str, list[Row]], source: Mapping[str, Any]) -> None:
    """Write `{split}.jsonl` for each split, and `source.json`, which says where the rows came from.

    Rows are ordered by their hashes. The sources are sorted by label or name, so only then are the
    first rows of a split (`limit`, `recipe.eval_limit`) a fair sample.
    """
    for split, rows in splits.items():
        write_jsonl(folder / f"{split}.jsonl", sorted(rows, key=_hash))
    counts = {split: len(rows) for split, rows in splits.items()}
    write_json(folder / "source.json", {**source, "counts": counts})


def _hash(row: Row) -> bytes:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()
