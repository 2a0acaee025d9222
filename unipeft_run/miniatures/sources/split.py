"""Splits that depend on an item's content alone: not on order, chance or a package's version."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable

from unipeft_run.miniatures.sources.cache import Row

Splits = dict[str, list[Row]]


def position(key: str) -> float:
    """A key's fixed place in [0, 1), uniform over keys."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def normalised(text: str) -> str:
    """Letters and digits only, lower case: equal for near duplicates."""
    return re.sub(r"[\W_]+", "", text.lower())


def split_by(
    rows: Iterable[Row], key: Callable[[Row], str], *, validation: float, test: float
) -> Splits:
    """Rows whose key's place is below `test`, the next `validation`, and the rest."""
    splits: Splits = {"train": [], "validation": [], "test": []}
    for row in rows:
        place = position(key(row))
        held_out = "test" if place < test else "validation"
        splits["train" if place >= test + validation else held_out].append(row)
    return splits


def unique(rows: Iterable[Row], key: Callable[[Row], str]) -> list[Row]:
    """The first row of each key."""
    seen: dict[str, Row] = {}
    for row in rows:
        seen.setdefault(key(row), row)
    return list(seen.values())


def without_shared(splits: Splits, *keys: Callable[[Row], str]) -> Splits:
    """Held-out rows that share any of the keys with a training row are dropped."""
    seen = [{key(row) for row in splits["train"]} for key in keys]

    def fresh(row: Row) -> bool:
        return not any(key(row) in known for key, known in zip(keys, seen, strict=True))

    held_out = {split: list(filter(fresh, splits[split])) for split in ("validation", "test")}
    return {"train": splits["train"], **held_out}


def at_most(rows: list[Row], limit: int, key: Callable[[Row], str]) -> list[Row]:
    """The `limit` rows whose keys have the lowest places: the same ones whatever else is there."""
    return sorted(rows, key=lambda row: position("sample:" + key(row)))[:limit]
