"""The pretraining corpus: text whose licences allow the weights to be distributed.

Only training splits are read; no validation or test item is in it.
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
from unipeft_run.miniatures.sources.cached_folder import RECIPE, build_once
from unipeft_run.miniatures.sources.rows import read_jsonl
from unipeft_run.miniatures.sources.split import normalise

HELD_OUT_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Corpus:
    """Documents by source, for each language, and (English, Romanian) pairs."""

    english: dict[str, list[str]]
    romanian: dict[str, list[str]]
    pairs: list[tuple[str, str]]
    descriptions: list[str]

    def sizes(self) -> dict[str, int]:
        """Count the characters of each source."""
        parts = {f"{name} (en)": docs for name, docs in self.english.items()}
        parts |= {f"{name} (ro)": docs for name, docs in self.romanian.items()}
        return {name: sum(map(len, docs)) for name, docs in parts.items()}


def read_glosses(root: Path) -> Iterator[str]:
    """Yield `words: definition; "example"` for each WordNet synset."""
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


def held_out_paragraphs(language: str) -> set[str]:
    """Return the normalised paragraphs of the held-out manual pages."""
    folder = fetch("wmt16_en_ro")
    rows = [row for split in HELD_OUT_SPLITS for row in read_jsonl(folder / f"{split}.jsonl")]
    return {normalise(row["translation"][language]) for row in rows}


def collect_translations(debian: Apt) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return training pairs from manual pages, and messages that match no held-out paragraph."""
    rows = read_jsonl(fetch("wmt16_en_ro") / "train.jsonl")
    pages = [(row["translation"]["en"], row["translation"]["ro"]) for row in rows]
    en_seen, ro_seen = held_out_paragraphs("en"), held_out_paragraphs("ro")
    messages = [
        (en, ro)
        for en, ro in catalogs.collect_pairs(debian)
        if normalise(en) not in en_seen and normalise(ro) not in ro_seen
    ]
    return pages, messages


def build_corpus() -> Corpus:
    """Fetch and combine all sources."""
    debian = Apt.open()
    descriptions = [row["document"] for row in read_jsonl(fetch("xsum") / "train.jsonl")]
    snli = read_jsonl(fetch("mnli") / "train.jsonl")
    captions = list(dict.fromkeys(row[c] for row in snli for c in ("premise", "hypothesis")))
    pages, messages = collect_translations(debian)
    english = {
        "Debian descriptions": descriptions,
        "WordNet glosses": list(read_glosses(debian.unpack("wordnet-base"))),
        "SNLI sentences": captions,
        "manual pages": [en for en, _ in pages],
    }
    romanian = {
        "manual pages": [ro for _, ro in pages],
        "program messages": [ro for _, ro in messages],
    }
    return Corpus(english, romanian, pages + messages, descriptions)


def load_corpus() -> Corpus:
    """Load the corpus from the cache, building it at first use; later uses need no network."""
    folder = build_once(cache_root() / "pretraining" / f"corpus-{RECIPE}", _write)
    parts = json.loads(gzip.decompress((folder / "corpus.json.gz").read_bytes()))
    pairs = [(en, ro) for en, ro in parts.pop("pairs")]
    return Corpus(**parts, pairs=pairs)


def _write(folder: Path) -> None:
    content = json.dumps(asdict(build_corpus()), ensure_ascii=False)
    (folder / "corpus.json.gz").write_bytes(gzip.compress(content.encode(), mtime=0))
