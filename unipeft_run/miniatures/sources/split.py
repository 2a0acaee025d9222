"""Split rows by their content alone, independently of order, chance or a package's version."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable

from unipeft_run.miniatures.sources.rows import Row

Splits = dict[str, list[Row]]
Key = Callable[[Row], str]


def hash_fraction(key: str) -> float:
    """Map a key to a fixed number in [0, 1), uniform over keys."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def normalise(text: str) -> str:
    """Keep letters and digits only, in lower case: near duplicates become equal."""
    return re.sub(r"[\W_]+", "", text.lower())


def split_by_hash(rows: Iterable[Row], key: Key, *, validation: float, test: float) -> Splits:
    """Assign rows by their key's fraction: the lowest to test, the next to validation."""
    splits: Splits = {"train": [], "validation": [], "test": []}
    for row in rows:
        fraction = hash_fraction(key(row))
        held_out = "test" if fraction < test else "validation"
        splits["train" if fraction >= test + validation else held_out].append(row)
    return splits


def deduplicate(rows: Iterable[Row], key: Key) -> list[Row]:
    """Keep the first row of each key."""
    seen: dict[str, Row] = {}
    for row in rows:
        seen.setdefault(key(row), row)
    return list(seen.values())


def drop_leaks(splits: Splits, *keys: Key) -> Splits:
    """Drop held-out rows that share any of the keys with a training row."""
    seen = [{key(row) for row in splits["train"]} for key in keys]

    def is_new(row: Row) -> bool:
        return not any(key(row) in known for key, known in zip(keys, seen, strict=True))

    held_out = {split: list(filter(is_new, splits[split])) for split in ("validation", "test")}
    return {"train": splits["train"], **held_out}


def sample(rows: list[Row], limit: int, key: Key) -> list[Row]:
    """Return the `limit` rows whose keys have the lowest fractions, whatever the other rows."""
    return sorted(rows, key=lambda row: hash_fraction("sample:" + key(row)))[:limit]
