"""Divide examples into splits, for data that lacks a validation or a test split.

A hash of the text and the seed decides the split of an example, not its row number: sorting a file
changes nothing, and adding rows moves few examples. Equal texts go to the same split, so that
none is tested on an example that it was trained on. Classes keep their shares in every split.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from unipeft_run.errors import UserError

MOST = 2000  # examples of a validation or test split whose size is not given
SHARE = 0.1
RULE = "by hash of the text and the seed, equal texts together, classes in proportion"


@dataclass(frozen=True)
class SplitRule:
    """Sizes of the validation and the test split, and the seed of the hash.

    A size is a share of all examples (below 1) or a number of examples; None for a tenth of the
    examples, at most 2,000.
    """

    validation: float | None = None
    test: float | None = None
    seed: int = 0

    def sizes(self, splits: Iterable[str], total: int) -> dict[str, int]:
        """Return the number of examples of each of `splits`. Raises `UserError`."""
        sizes = {split: _size(getattr(self, split), total) for split in splits}
        if sum(sizes.values()) >= total:
            asked = " and ".join(f"{size:,} for {split}" for split, size in sizes.items())
            raise UserError(
                f"{asked}: that leaves none of the {total:,} examples for training; lower "
                "task.validation_size or task.test_size, or give more data"
            )
        return sizes


def _size(wanted: float | None, total: int) -> int:
    if wanted is None:
        return min(MOST, max(1, round(SHARE * total)))
    return max(1, round(wanted * total)) if wanted < 1 else round(wanted)


def divide(
    texts: Sequence[str], classes: Sequence[object] | None, sizes: Mapping[str, int], seed: int
) -> dict[str, list[int]]:
    """Return the rows of each split in `sizes`, and the rest as "train", in random order.

    Rows with equal texts stay together. A split is smaller than its size if no more of these groups
    fit; one that would be empty gets the smallest group of "train", unless "train" has only one.
    """
    room = {**sizes, "train": len(texts)}
    groups: dict[str, list[list[int]]] = {split: [] for split in ("train", *sizes)}
    for group in _order(texts, classes, seed):
        split = next(split for split, rows in room.items() if len(group) <= rows)
        groups[split].append(group)
        room[split] -= len(group)
    train = groups["train"]
    for split in sizes:
        if not groups[split] and len(train) > 1:
            groups[split].append(train.pop(train.index(min(train, key=len))))
    return {split: list(chain.from_iterable(found)) for split, found in groups.items()}


def _order(texts: Sequence[str], classes: Sequence[object] | None, seed: int) -> list[list[int]]:
    """Group the rows with equal texts; order the groups by hash, with the classes interleaved."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        rows[text].append(row)
    hashed = sorted((_hash(seed, text), group) for text, group in rows.items())
    labels = [None if classes is None else classes[group[0]] for _, group in hashed]
    totals, seen = Counter(labels), Counter[object]()
    places = []
    for label, (digest, group) in zip(labels, hashed, strict=True):
        places.append(((seen[label] + 0.5) / totals[label], digest, group))
        seen[label] += 1
    return [group for _, _, group in sorted(places)]


def _hash(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode()).digest()
