"""Pretraining examples: a seeded, endless mixture of infilling, lead sentences and translation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from tokenizers import Tokenizer

from unipeft_run.miniatures.pretraining.corpus import Corpus
from unipeft_run.miniatures.pretraining.noising import infill
from unipeft_run.miniatures.pretraining.tokenizer import IDS

Kind = Literal["infill", "infill_ro", "lead", "translate"]
Tokens = list[int]

LENGTHS = (32, 64, 128, 192, 256)  # of an infilling target, with its two special tokens
LENGTH_SHARES = (0.15, 0.3, 0.35, 0.1, 0.1)
LONGEST_SOURCE, LONGEST_LEAD = 220, 62
SENTENCE = re.compile(r"(?P<first>.{25,}?[.!?])\s+(?P<rest>[A-Z].{60,})", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """Source and target token ids, without the family's special tokens, and their languages."""

    source: Tokens
    target: Tokens
    source_language: str = "en_XX"
    target_language: str = "en_XX"


def split_first_sentence(description: str) -> tuple[str, str] | None:
    """Split off the first sentence: (first, rest); None if there is no rest."""
    parts = SENTENCE.match(description)
    return (parts["first"], parts["rest"]) if parts else None


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[Tokens]:
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [item.ids for item in encoded]


def shuffle_forever(items: list[Tokens], rng: np.random.Generator) -> Iterator[Tokens]:
    """Iterate over the items without end, reshuffled after every pass."""
    while True:
        for index in rng.permutation(len(items)).tolist():
            yield items[index]


class Mixture:
    """Draws the kind of each example by its share, and infilling sources by their size."""

    def __init__(
        self, corpus: Corpus, tokenizer: Tokenizer, shares: dict[Kind, float], seed: int
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.kinds = list(shares)
        self.shares = np.array(list(shares.values()))
        self.mask = IDS["<mask>"]
        self.prefixes = {kind: [IDS[f"<{kind}>"]] for kind in ("lead", "translate")}
        self.streams = {
            "infill": self._streams(tokenizer, corpus.english),
            "infill_ro": self._streams(tokenizer, corpus.romanian),
        }
        split = [parts for text in corpus.descriptions if (parts := split_first_sentence(text))]
        self.leads = self._pairs(tokenizer, [(rest, first) for first, rest in split])
        self.translations = self._pairs(tokenizer, corpus.pairs)

    def __iter__(self) -> Iterator[Example]:
        while True:
            yield self.draw(self.kinds[self.rng.choice(len(self.kinds), p=self.shares)])

    def draw(self, kind: Kind) -> Example:
        if kind == "lead":
            return self._pair(kind, self.leads, "en_XX")
        if kind == "translate":
            return self._pair(kind, self.translations, "ro_RO")
        language = "ro_RO" if kind == "infill_ro" else "en_XX"
        target = self._passage(kind)
        return Example(infill(target, self.mask, self.rng), target, language, language)

    def _streams(
        self, tokenizer: Tokenizer, sources: dict[str, list[str]]
    ) -> list[tuple[float, Iterator[Tokens]]]:
        """Return (share of tokens, endless documents) per source; documents start with a space."""
        encoded = [encode(tokenizer, [f" {text}" for text in docs]) for docs in sources.values()]
        sizes = np.array([sum(map(len, docs)) for docs in encoded], dtype=float)
        return [
            (float(share), shuffle_forever(docs, self.rng))
            for share, docs in zip(sizes / sizes.sum(), encoded, strict=True)
        ]

    def _passage(self, kind: Kind) -> Tokens:
        """Concatenate documents of one source and cut them to one of a few lengths."""
        streams = self.streams[kind]
        _, stream = streams[self.rng.choice(len(streams), p=[share for share, _ in streams])]
        length = int(self.rng.choice(LENGTHS, p=LENGTH_SHARES)) - 2
        passage: Tokens = []
        while len(passage) < length:
            passage += next(stream)
        return passage[:length]

    def _pairs(self, tokenizer: Tokenizer, pairs: list[tuple[str, str]]) -> list[list[Tokens]]:
        sources = encode(tokenizer, [source for source, _ in pairs])
        targets = encode(tokenizer, [target for _, target in pairs])
        return [list(pair) for pair in zip(sources, targets, strict=True)]

    def _pair(self, kind: Kind, pairs: list[list[Tokens]], language: str) -> Example:
        source, target = pairs[self.rng.integers(len(pairs))]
        source = self.prefixes[kind] + source[:LONGEST_SOURCE]
        longest = LONGEST_LEAD if kind == "lead" else LONGEST_SOURCE
        return Example(source, target[:longest], target_language=language)
