"""Emoji pictures by three artists, with names and categories: 64 x 64 pixels, transparent.

Tasks are trained on the pictures of one artist (Noto Emoji) and tested on those of another
(Twemoji). The third artist (EmojiOne) is only used to pretrain the miniatures.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unipeft_run.miniatures.sources.archives import read_member, read_members
from unipeft_run.miniatures.sources.npm import NpmRelease
from unipeft_run.miniatures.sources.rows import Row, write_json
from unipeft_run.miniatures.sources.split import Splits, hash_fraction

VALIDATION = 0.2  # share of the emoji; the others are for testing


@dataclass(frozen=True)
class Artist:
    """The archive of one artist's pictures, and the folder of the pictures in it."""

    name: str
    release: NpmRelease
    folder: str
    licence: str

    def read_pictures(self) -> dict[str, bytes]:
        """Return the PNG files by code points, as in `1f1e9-1f1ea`, without variation selectors."""
        found = read_members(self.release.download(), (".png",))
        pictures = {
            without_selectors(PurePosixPath(path).stem): content
            for path, content in found
            if str(PurePosixPath(path).parent) == self.folder
        }
        return pictures


NOTO = Artist(
    "Noto Emoji",
    NpmRelease(
        "emoji-datasource-google",
        "16.0.0",
        "emoji-datasource-google-16.0.0.tgz",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    ),
    "package/img/google/64",
    "Apache-2.0",
)
TWEMOJI = Artist(
    "Twemoji",
    NpmRelease(
        "emoji-datasource-twitter",
        "16.0.0",
        "emoji-datasource-twitter-16.0.0.tgz",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    ),
    "package/img/twitter/64",
    "CC BY 4.0",
)
EMOJIONE = Artist(
    "EmojiOne",
    NpmRelease(
        "emojione",
        "2.2.7",
        "emojione-2.2.7.tgz",
        "5fe002738e6e276f49ac37783799d2feab99a6131fdedccfa56569d745449ae5",
    ),
    "package/assets/png",
    "CC BY 4.0",
)


@dataclass(frozen=True)
class Emoji:
    """One emoji: its code points in hexadecimal, its name, and the names of its categories."""

    code: str
    name: str
    category: str
    subcategory: str

    @property
    def held_out(self) -> str:
        """Return the held-out split that this emoji belongs to, by the hash of its code points."""
        return "validation" if hash_fraction(self.code) < VALIDATION else "test"


def without_selectors(code: str) -> str:
    """Drop variation selectors and joiners, which artists' file names do not agree on."""
    return "-".join(part for part in code.lower().split("-") if part not in ("fe0f", "200d"))


def parse_emoji(content: bytes) -> list[Emoji]:
    """Parse `emoji.json`."""
    return [
        Emoji(
            without_selectors(item["unified"]),
            item["name"].lower(),
            item["category"],
            item["subcategory"],
        )
        for item in json.loads(content)
    ]


def read_emoji() -> list[Emoji]:
    """Return all emoji, in the order of their package."""
    return parse_emoji(read_member(NOTO.release.download(), "package/emoji.json"))


def artist_of(split: str) -> Artist:
    return NOTO if split == "train" else TWEMOJI


def write_parquet(folder: Path, splits: Splits, source: Row) -> None:
    """Write `{split}.parquet` for each split, its rows ordered by their hash, and `source.json`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split, rows in splits.items():
        ordered = sorted(rows, key=lambda row: hash_fraction(str(row["id"])))
        pq.write_table(pa.Table.from_pylist(ordered), folder / f"{split}.parquet")
    counts = {split: len(rows) for split, rows in splits.items()}
    artists = {split: artist_of(split) for split in splits}
    packages = {split: artist.release.describe() for split, artist in artists.items()}
    licences = {split: artist.licence for split, artist in artists.items()}
    common = {"package": packages, "licence": licences, "counts": counts}
    write_json(folder / "source.json", {**source, **common})
