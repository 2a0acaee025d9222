"""Summarisation (xsum): a Debian package's long description -> its one-line synopsis."""

from __future__ import annotations

import re
from pathlib import Path

from unipeft_run.miniatures.sources import apt
from unipeft_run.miniatures.sources.rows import Row, write_splits
from unipeft_run.miniatures.sources.split import (
    deduplicate,
    drop_leaks,
    normalise,
    sample,
    split_by_hash,
)

SHORTEST_DOCUMENT, SHORTEST_SUMMARY = 15, 3  # words
HELD_OUT = 500  # of each held-out split: generation is slow on a CPU


def parse_description(description: str) -> tuple[str, str]:
    """Split a `Description-en` field into (long description as running text, synopsis)."""
    synopsis, _, rest = description.partition("\n")
    lines = [line.strip() for line in rest.splitlines()]
    return " ".join(line for line in lines if line not in ("", ".")), synopsis.strip()


def strip_version(source_package: str) -> str:
    """Return a source package's name without its version: `gcc-14` and `gcc-15` become one."""
    return re.sub(r"[\d.+~-]+", "", source_package)


def first_characters(row: Row) -> str:
    return str(row["document"])[:60]


def normalised_summary(row: Row) -> str:
    return normalise(str(row["summary"]))


def parse_index(index: Path, sources: dict[str, str]) -> list[Row]:
    """Return the usable descriptions in a Translation-en index, with their unversioned source."""
    rows = []
    for item in apt.parse_stanzas(index):
        name = item["Package"].strip()
        document, synopsis = parse_description(item["Description-en"])
        if len(document.split()) >= SHORTEST_DOCUMENT and len(synopsis.split()) >= SHORTEST_SUMMARY:
            row = {"document": document, "summary": synopsis, "id": name}
            rows.append({**row, "family": strip_version(sources.get(name, name))})
    return rows


def build(folder: Path) -> None:
    """Write the splits to `folder`."""
    debian = apt.Apt.open()
    sources = debian.read_packages()
    indexes = debian.find_indexes("Translation-en")
    rows = [row for index in indexes for row in parse_index(index, sources)]
    rows = deduplicate(rows, lambda row: normalise(str(row["document"])))
    splits = split_by_hash(rows, lambda row: str(row["family"]), validation=0.025, test=0.025)
    splits = drop_leaks(splits, first_characters, normalised_summary)
    for split in ("validation", "test"):
        splits[split] = sample(splits[split], HELD_OUT, lambda row: str(row["id"]))
    source = {
        "what": "Debian package descriptions -> their one-line synopses",
        "package": {"name": "Translation-en", "release": debian.release},
        "licence": "freely redistributable with Debian; each description under its package's",
        "split": "hash of the source package's name without its version; held-out items whose "
        "first 60 characters or whose synopsis occur in training are dropped",
    }
    write_splits(folder, splits, source)
