"""Summarisation: a Debian package's long description and the one-line synopsis people wrote."""

from __future__ import annotations

import re
from pathlib import Path

from unipeft_run.miniatures.sources import apt
from unipeft_run.miniatures.sources.cache import Row, write_splits
from unipeft_run.miniatures.sources.split import (
    at_most,
    normalised,
    split_by,
    unique,
    without_shared,
)

SHORTEST_DOCUMENT, SHORTEST_SUMMARY = 15, 3  # words
HELD_OUT = 500  # of each held-out split: generation is slow on a CPU


def parse(description: str) -> tuple[str, str]:
    """(long description as running text, synopsis) of a `Description-en` field."""
    synopsis, _, rest = description.partition("\n")
    lines = [line.strip() for line in rest.splitlines()]
    return " ".join(line for line in lines if line not in ("", ".")), synopsis.strip()


def family(source_package: str) -> str:
    """A source package's name without its version: `gcc-14` and `gcc-15` are one family."""
    return re.sub(r"[\d.+~-]+", "", source_package)


def opening(row: Row) -> str:
    return str(row["document"])[:60]


def summary(row: Row) -> str:
    return normalised(str(row["summary"]))


def rows_of(index: Path, sources: dict[str, str]) -> list[Row]:
    """The usable descriptions of one Translation-en index, with their source family."""
    rows = []
    for item in apt.stanzas(index):
        name = item["Package"].strip()
        document, synopsis = parse(item["Description-en"])
        if len(document.split()) >= SHORTEST_DOCUMENT and len(synopsis.split()) >= SHORTEST_SUMMARY:
            row = {"document": document, "summary": synopsis, "id": name}
            rows.append({**row, "family": family(sources.get(name, name))})
    return rows


def build(folder: Path) -> None:
    debian = apt.Apt.open()
    sources = debian.packages()
    rows = [row for index in debian.index("Translation-en") for row in rows_of(index, sources)]
    rows = unique(rows, lambda row: normalised(str(row["document"])))
    splits = split_by(rows, lambda row: str(row["family"]), validation=0.025, test=0.025)
    splits = without_shared(splits, opening, summary)
    for split in ("validation", "test"):
        splits[split] = at_most(splits[split], HELD_OUT, lambda row: str(row["id"]))
    source = {
        "what": "Debian package descriptions -> their one-line synopses",
        "package": {"name": "Translation-en", "release": debian.release},
        "licence": "freely redistributable with Debian; each description under its package's",
        "split": "hash of the source package's name without its version; held-out items whose "
        "first 60 characters or whose synopsis occur in training are dropped",
    }
    write_splits(folder, splits, source)
