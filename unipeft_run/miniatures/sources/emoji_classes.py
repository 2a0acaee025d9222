"""Image classification (cifar100): subcategories of emoji, tested on another artist's pictures."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from unipeft_run.miniatures.sources import emoji
from unipeft_run.miniatures.sources.emoji import Emoji
from unipeft_run.miniatures.sources.rows import Row
from unipeft_run.miniatures.sources.split import Splits, hash_fraction

SMALLEST, LARGEST = 8, 40  # emoji in a class; larger classes are sampled


def choose_classes(found: list[Emoji]) -> dict[str, list[Emoji]]:
    """Return the emoji of each subcategory with at least `SMALLEST`, by name."""
    members: dict[str, list[Emoji]] = defaultdict(list)
    for item in sorted(found, key=lambda item: hash_fraction(f"class: {item.code}")):
        members[item.subcategory].append(item)
    return {n: items[:LARGEST] for n, items in sorted(members.items()) if len(items) >= SMALLEST}


def split_rows(
    classes: Mapping[str, list[Emoji]], train: Mapping[str, bytes], test: Mapping[str, bytes]
) -> Splits:
    """Return rows `image`, `label`, `id`: one artist trains, the other one's emoji are split."""
    splits: Splits = {"train": [], "validation": [], "test": []}
    for label, items in enumerate(classes.values()):
        for item in items:
            if item.code in train and item.code in test:
                splits["train"].append(make_row(train[item.code], label, f"noto/{item.code}"))
                row = make_row(test[item.code], label, f"twemoji/{item.code}")
                splits[item.held_out].append(row)
    return splits


def make_row(image: bytes, label: int, name: str) -> Row:
    return {"image": image, "label": label, "id": name}


def build(folder: Path) -> None:
    """Write the splits and `labels.json`, the names of the classes in order, to `folder`."""
    found = emoji.read_emoji()
    classes = choose_classes(found)
    dropped = sorted(
        n for n, count in Counter(i.subcategory for i in found).items() if count < SMALLEST
    )
    splits = split_rows(classes, emoji.NOTO.read_pictures(), emoji.TWEMOJI.read_pictures())
    (folder / "labels.json").write_text(json.dumps(list(classes), indent=1), encoding="utf-8")
    source = {
        "what": f"pictures of emoji and their subcategories ({len(classes)} classes)",
        "split": "by artist: Noto Emoji trains, Twemoji tests; the emoji of validation and test "
        f"are disjoint. Subcategories with fewer than {SMALLEST} emoji are dropped, of larger "
        f"ones at most {LARGEST} are kept",
        "dropped": dropped,
    }
    emoji.write_parquet(folder, splits, source)
