"""Text-to-video retrieval (didemo): sequences of emoji pictures, and sentences that name them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from unipeft_run.miniatures.sources import emoji
from unipeft_run.miniatures.sources.emoji import Emoji
from unipeft_run.miniatures.sources.rows import Row
from unipeft_run.miniatures.sources.split import Splits

FRAMES = 4
SIZES = {"train": 2000, "validation": 200, "test": 500}
SEED = 42
BEGINNINGS = ("first", "then", "after that", "at last")


def describe(items: list[Emoji]) -> str:
    """Name the emoji in order."""
    parts = [f"{word} {item.name}" for word, item in zip(BEGINNINGS, items, strict=True)]
    return ", ".join(parts)


def draw_rows(split: str, known: list[Emoji], pictures: Mapping[str, bytes]) -> list[Row]:
    """Draw sequences of different emoji of a split: rows `images`, `text`, `id`."""
    draw = random.Random(f"{SEED} {split}")
    usable = [item for item in known if item.code in pictures]
    if split != "train":
        usable = [item for item in usable if item.held_out == split]
    rows = []
    for number in range(SIZES[split]):
        items = draw.sample(usable, FRAMES)
        images = [pictures[item.code] for item in items]
        rows.append({"images": images, "text": describe(items), "id": f"{split}/{number}"})
    return rows


def split_rows(known: list[Emoji], artists: Mapping[str, Mapping[str, bytes]]) -> Splits:
    """Return the rows of each split; `artists` maps a split to its artist's pictures."""
    return {split: draw_rows(split, known, artists[split]) for split in SIZES}


def build(folder: Path) -> None:
    """Write the splits to `folder`."""
    pictures = {"train": emoji.NOTO.read_pictures()}
    pictures["validation"] = pictures["test"] = emoji.TWEMOJI.read_pictures()
    source = {
        "what": f"sequences of {FRAMES} pictures of emoji, and sentences that name them in order",
        "split": "by artist: Noto Emoji trains, Twemoji tests; the emoji of validation and test "
        "are disjoint",
    }
    emoji.write_parquet(folder, split_rows(emoji.read_emoji(), pictures), source)
