"""What the miniatures are pretrained on: text whose licence lets weights be given away.

Only training splits are read: no test or validation item is seen in any form.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from unipeft_run.data.cache import cache_root
from unipeft_run.miniatures.pretraining import catalogs
from unipeft_run.miniatures.sources import fetch
from unipeft_run.miniatures.sources.apt import Apt
from unipeft_run.miniatures.sources.cache import RECIPE, build_once, read_jsonl
from unipeft_run.miniatures.sources.split import normalised

HELD_OUT_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Corpus:
    """Documents by source and language; pairs are (English, Romanian)."""

    english: dict[str, list[str]]
    romanian: dict[str, list[str]]
    pairs: list[tuple[str, str]]
    descriptions: list[str]

    def sizes(self) -> dict[str, int]:
        """Characters by source."""
        parts = {f"{name} (en)": docs for name, docs in self.english.items()}
        parts |= {f"{name} (ro)": docs for name, docs in self.romanian.items()}
        return {name: sum(map(len, docs)) for name, docs in parts.items()}


def glosses(root: Path) -> Iterator[str]:
    """`words: definition; "example"` of each WordNet synset."""
    for part in ("noun", "verb", "adj", "adv"):
        path = root / "usr/share/wordnet" / f"data.{part}"
        for line in path.read_text(encoding="latin-1").splitlines():
            head, bar, gloss = line.partition(" | ")
            if bar and not line.startswith(" "):
                yield f"{', '.join(_synonyms(head))}: {gloss.strip()}"


def _synonyms(head: str) -> list[str]:
    fields = head.split()
    words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
    return [re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in words]


def held_out(side: str) -> set[str]:
    """The held-out manual-page paragraphs of one language, normalised."""
    folder = fetch("wmt16_en_ro")
    rows = [row for split in HELD_OUT_SPLITS for row in read_jsonl(folder / f"{split}.jsonl")]
    return {normalised(row["translation"][side]) for row in rows}


def parallel(debian: Apt) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(training pairs of the manual pages, message pairs that are no held-out paragraph)."""
    rows = read_jsonl(fetch("wmt16_en_ro") / "train.jsonl")
    pages = [(row["translation"]["en"], row["translation"]["ro"]) for row in rows]
    en_seen, ro_seen = held_out("en"), held_out("ro")
    messages = [
        (en, ro)
        for en, ro in catalogs.pairs(debian)
        if normalised(en) not in en_seen and normalised(ro) not in ro_seen
    ]
    return pages, messages


def build() -> Corpus:
    debian = Apt.open()
    descriptions = [row["document"] for row in read_jsonl(fetch("xsum") / "train.jsonl")]
    snli = read_jsonl(fetch("mnli") / "train.jsonl")
    captions = list(dict.fromkeys(row[c] for row in snli for c in ("premise", "hypothesis")))
    pages, messages = parallel(debian)
    english = {
        "Debian descriptions": descriptions,
        "WordNet glosses": list(glosses(debian.unpack("wordnet-base"))),
        "SNLI sentences": captions,
        "manual pages": [en for en, _ in pages],
    }
    romanian = {
        "manual pages": [ro for _, ro in pages],
        "program messages": [ro for _, ro in messages],
    }
    return Corpus(english, romanian, pages + messages, descriptions)


def cached() -> Corpus:
    """The corpus, built once; later runs, and machines without a network, read one file."""
    folder = build_once(cache_root() / "pretraining" / f"corpus-{RECIPE}", _write)
    parts = json.loads(gzip.decompress((folder / "corpus.json.gz").read_bytes()))
    pairs = [(en, ro) for en, ro in parts.pop("pairs")]
    return Corpus(**parts, pairs=pairs)


def _write(folder: Path) -> None:
    content = json.dumps(asdict(build()), ensure_ascii=False)
    (folder / "corpus.json.gz").write_bytes(gzip.compress(content.encode(), mtime=0))
