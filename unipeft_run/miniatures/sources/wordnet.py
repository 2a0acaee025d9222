"""WordNet's synsets: words, definitions, examples, relations, and how often each sense occurs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unipeft_run.miniatures.sources.split import hash_fraction

FOLDER = "usr/share/wordnet"  # in the Debian package wordnet-base
PACKAGE = "wordnet-base"
PARTS = ("noun", "verb", "adj", "adv")
SENSE_TYPES = {"n": "1", "v": "2", "a": "3", "r": "4", "s": "5"}
TEST, VALIDATION = 0.10, 0.05  # shares of the synsets

HYPERNYM, HYPONYM, ANTONYM, PART_OF = "@", "~", "!", "#p"  # pointer symbols


@dataclass(frozen=True)
class Pointer:
    """A relation to another synset; `source` and `target` count words from 1, 0 is all words."""

    symbol: str
    synset: str
    source: int
    target: int


@dataclass(frozen=True)
class Synset:
    """One synset. `count` is the number of its occurrences in the sense-tagged corpus."""

    name: str  # part of speech and offset, for example n02121620
    file: str  # number of the lexicographers' file, which groups synsets by topic
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]
    pointers: tuple[Pointer, ...]
    count: int

    @property
    def part(self) -> str:
        """Return the part of speech: n, v, a or r."""
        return self.name[0]

    @property
    def split(self) -> str:
        """Return the split that this synset belongs to, by the hash of its name."""
        fraction = hash_fraction(self.name)
        if fraction < TEST:
            return "test"
        return "validation" if fraction < TEST + VALIDATION else "train"


def read_counts(path: Path) -> dict[str, int]:
    """Read `cntlist.rev`: sense key without its head word -> occurrences."""
    counts: dict[str, int] = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        key, _, count = line.split()
        short = ":".join(key.split(":")[:3])
        counts[short] = counts.get(short, 0) + int(count)
    return counts


def parse_line(line: str, counts: dict[str, int]) -> Synset:
    """Parse a line of `data.{noun,verb,adj,adv}` (manual page wndb(5))."""
    head, _, gloss = line.partition(" | ")
    offset, lexical_file, kind, number, *fields = head.split()
    end = 2 * int(number, 16)
    spelt = [re.sub(r"\(\w+\)$", "", word) for word in fields[:end:2]]
    sense = [
        f"{word.lower()}%{SENSE_TYPES[kind]}:{lexical_file}:{int(index, 16):02d}"
        for word, index in zip(spelt, fields[1:end:2], strict=True)
    ]
    pointed = fields[end + 1 : end + 1 + 4 * int(fields[end])]
    definition, examples = split_gloss(gloss)
    return Synset(
        name=_name(kind, offset),
        file=lexical_file,
        words=tuple(word.replace("_", " ") for word in spelt),
        definition=definition,
        examples=examples,
        pointers=tuple(_pointer(*pointed[i : i + 4]) for i in range(0, len(pointed), 4)),
        count=sum(counts.get(key, 0) for key in sense),
    )


def _name(kind: str, offset: str) -> str:
    return f"{'a' if kind == 's' else kind}{offset}"


def _pointer(symbol: str, offset: str, kind: str, words: str) -> Pointer:
    return Pointer(symbol, _name(kind, offset), int(words[:2], 16), int(words[2:], 16))


def split_gloss(gloss: str) -> tuple[str, tuple[str, ...]]:
    """Split a gloss into its definition and its quoted examples."""
    definition, _, _ = gloss.partition('; "')
    examples = re.findall(r'"([^"]+)"', gloss[len(definition) :])
    return definition.strip().strip(";").strip(), tuple(text.strip() for text in examples)


def read_synsets(root: Path) -> dict[str, Synset]:
    """Read all synsets of the unpacked package by name."""
    counts = read_counts(root / FOLDER / "cntlist.rev")
    return {synset.name: synset for synset in _parse_files(root / FOLDER, counts)}


def _parse_files(folder: Path, counts: dict[str, int]) -> Iterator[Synset]:
    for part in PARTS:
        for line in (folder / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if not line.startswith(" "):
                yield parse_line(line, counts)
