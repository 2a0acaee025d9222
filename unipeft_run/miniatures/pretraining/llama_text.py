"""The text of llama_mini: the corpus of bart_mini, WordNet's training synsets, and sums.

Nothing of a held-out synset is in it: no gloss, no relation from or to it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from unipeft_run.miniatures.pretraining import corpus as corpora
from unipeft_run.miniatures.sources import word_problems, wordnet
from unipeft_run.miniatures.sources.apt import Apt
from unipeft_run.miniatures.sources.rows import Row
from unipeft_run.miniatures.sources.wordnet import Pointer, Synset

SENTENCES = {
    wordnet.HYPERNYM: "{} is a kind of {}.",
    wordnet.ANTONYM: "{} is the opposite of {}.",
    wordnet.PART_OF: "{} is a part of {}.",
}
SUMS = 60_000
SIGNS = "+-*/"


def training_text() -> dict[str, list[str]]:
    """Return the documents of each source."""
    english = corpora.load_corpus().english
    synsets = wordnet.read_synsets(Apt.open().unpack(wordnet.PACKAGE))
    problems = word_problems.split_problems()
    return {
        "WordNet, common synsets": describe_all(common(synsets), synsets, "train"),
        "WordNet, rare synsets": describe_all(rare(synsets), synsets, "train"),
        "Debian": english["Debian descriptions"],
        "SNLI": english["SNLI sentences"],
        "manual pages": english["manual pages"],
        "sums": write_sums(problems),
    }


def held_out_text() -> dict[str, list[str]]:
    """Return validation documents of WordNet and word problems."""
    synsets = wordnet.read_synsets(Apt.open().unpack(wordnet.PACKAGE))
    problems = [write_problem(row) for row in word_problems.split_problems()["validation"]]
    described = describe_all(common(synsets), synsets, "validation")
    return {"WordNet": random.Random(0).sample(described, len(described)), "sums": problems}


def common(synsets: Mapping[str, Synset]) -> list[Synset]:
    """Return the synsets that occur in the sense-tagged corpus."""
    return [synset for synset in synsets.values() if synset.count]


def rare(synsets: Mapping[str, Synset]) -> list[Synset]:
    return [synset for synset in synsets.values() if not synset.count]


def describe_all(chosen: list[Synset], synsets: Mapping[str, Synset], split: str) -> list[str]:
    """Return sentences on the chosen synsets of a split, with relations inside that split."""
    return [
        sentence
        for synset in chosen
        if synset.split == split
        for sentence in describe(
            synset, [p for p in synset.pointers if synsets[p.synset].split == split], synsets
        )
    ]


def describe(synset: Synset, pointers: list[Pointer], synsets: Mapping[str, Synset]) -> list[str]:
    """Write a synset as sentences: its words, definition, examples and relations."""
    first = synset.words[0]
    sentences = [f"{', '.join(synset.words)}: {synset.definition}."]
    sentences += [f"{synset.definition}: {first}.", *(f"{text}." for text in synset.examples)]
    for pointer in pointers:
        if pointer.symbol in SENTENCES:
            source = synset.words[max(pointer.source, 1) - 1]
            target = synsets[pointer.synset].words[max(pointer.target, 1) - 1]
            sentences.append(SENTENCES[pointer.symbol].format(source, target))
    sentences += [f"{first} means {other}." for other in synset.words[1:]]
    return sentences


def write_problem(row: Row) -> str:
    return f"{row['question']}\n{row['answer']}"


def write_sums(problems: Mapping[str, list[Row]]) -> list[str]:
    """Return the training problems, and plain sums that occur in no held-out problem."""
    held_out = {
        step for split in ("validation", "test") for row in problems[split] for step in row["sum"]
    }
    draw = random.Random(0)
    sums = [step for step in (draw_sum(draw) for _ in range(SUMS)) if step not in held_out]
    lines = [" ".join(f"{step}." for step in sums[i : i + 8]) for i in range(0, len(sums), 8)]
    return [*lines, *map(write_problem, problems["train"])]


def draw_sum(draw: random.Random) -> str:
    """Draw a sum, difference, product or quotient of natural numbers below about 200."""
    sign = draw.choice(SIGNS)
    if sign in "*/":
        a, b = draw.randint(1, 12), draw.randint(1, 12)
        return f"{a} * {b} = {a * b}" if sign == "*" else f"{a * b} / {b} = {a}"
    a, b = draw.randint(1, 99), draw.randint(1, 99)
    return f"{a} + {b} = {a + b}" if sign == "+" else f"{a + b} - {b} = {a}"
