"""Multiple choice about WordNet (commonsense): eight tests on the meanings of words.

A test question is about a held-out synset. The wrong choices are right answers to other questions
of the same test and part of speech, so that a guess without the question is right in one of four.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unipeft_run.miniatures.sources import wordnet
from unipeft_run.miniatures.sources.apt import Apt
from unipeft_run.miniatures.sources.rows import Row, write_splits
from unipeft_run.miniatures.sources.split import Splits, drop_leaks, hash_fraction, sample
from unipeft_run.miniatures.sources.wordnet import ANTONYM, HYPERNYM, HYPONYM, PART_OF, Synset

CHOICES = 4
LIMITS = {"train": 2500, "validation": 60, "test": 200}  # questions of each test
LONGEST = 120  # characters of a definition or an example


@dataclass(frozen=True)
class Question:
    """A question about `subject`; `about` and `answered` are the synsets of question and answer."""

    text: str
    answer: str
    subject: str
    about: Synset
    answered: Synset


Ask = Callable[[Synset, Mapping[str, Synset]], Iterator[Question]]


def ask_word(synset: Synset, synsets: Mapping[str, Synset]) -> Iterator[Question]:
    text = f'Which word means "{synset.definition}"?'
    yield Question(text, synset.words[0], synset.words[0], synset, synset)


def ask_definition(synset: Synset, synsets: Mapping[str, Synset]) -> Iterator[Question]:
    word = synset.words[0]
    yield Question(f'What does "{word}" mean?', synset.definition, word, synset, synset)


def ask_synonym(synset: Synset, synsets: Mapping[str, Synset]) -> Iterator[Question]:
    if len({word.lower() for word in synset.words[:2]}) == 2:
        word, other = synset.words[:2]
        text = f'Which word means the same as "{word}"?'
        yield Question(text, other, word, synset, synset)


def ask_example(synset: Synset, synsets: Mapping[str, Synset]) -> Iterator[Question]:
    for example in synset.examples[:1]:
        for word in synset.words:
            gapped, gaps = re.subn(rf"\b{re.escape(word)}\b", "___", example)
            if gaps == 1 and len(example) <= LONGEST:
                text = f'Which word belongs in the gap: "{gapped}"?'
                yield Question(text, word, word, synset, synset)
                return


def ask_relation(
    symbol: str, template: str, synset: Synset, synsets: Mapping[str, Synset]
) -> Iterator[Question]:
    """Ask for the first common synset that a pointer of this kind leads to."""
    for pointer in synset.pointers:
        other = synsets[pointer.synset]
        if pointer.symbol == symbol and other.count:
            word = synset.words[max(pointer.source, 1) - 1]
            answer = other.words[max(pointer.target, 1) - 1]
            if answer.lower() != word.lower():
                yield Question(template.format(word), answer, word, synset, other)
            return


TESTS: dict[str, Ask] = {
    "definition_to_word": ask_word,
    "word_to_definition": ask_definition,
    "synonym": ask_synonym,
    "antonym": partial(ask_relation, ANTONYM, 'What is the opposite of "{}"?'),
    "kind_of": partial(ask_relation, HYPERNYM, 'What is "{}" a kind of?'),
    "example_of": partial(ask_relation, HYPONYM, 'Which of these is a kind of "{}"?'),
    "part_of": partial(ask_relation, PART_OF, 'What is "{}" a part of?'),
    "gap": ask_example,
}


def collect_questions(synsets: Mapping[str, Synset], ask: Ask) -> dict[str, list[Question]]:
    """Return the questions about common synsets by split; in training, both synsets are of it."""
    found: dict[str, list[Question]] = {"train": [], "validation": [], "test": []}
    for synset in synsets.values():
        if synset.count and len(synset.definition) <= LONGEST:
            for question in ask(synset, synsets):
                split = question.about.split
                if split != "train" or question.answered.split == "train":
                    found[split].append(question)
    return found


def add_choices(questions: list[Question], test: str) -> Iterator[Row]:
    """Yield rows with three answers to other questions about the same part of speech."""
    pools: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        pools[question.answered.part].append(question)
    for question in questions:
        draw = random.Random(int(2**53 * hash_fraction(f"{test}: {question.about.name}")))
        choices = [question.answer, *draw_wrong(question, pools[question.answered.part], draw)]
        if len(choices) == CHOICES:
            draw.shuffle(choices)
            answer = choices.index(question.answer)
            row = {"question": question.text, "choices": choices, "answer": answer, "task": test}
            yield {**row, "id": f"{test}/{question.about.name}"}


def draw_wrong(question: Question, pool: list[Question], draw: random.Random) -> list[str]:
    """Draw different answers that are not words of the question's synsets or of its subject."""
    related = {question.about.name, question.answered.name}
    related |= {pointer.synset for pointer in question.about.pointers}
    found: list[str] = []
    for _ in range(20 * CHOICES):
        other = draw.choice(pool)
        is_right = other.answered.name in related or other.about.name in related
        is_sense = question.subject in other.answered.words
        if not (is_right or is_sense or other.answer in (question.answer, *found)):
            found.append(other.answer)
        if len(found) == CHOICES - 1:
            return found
    return []


def split_rows(synsets: Mapping[str, Synset]) -> Splits:
    """Return the rows of all tests by split."""
    splits: Splits = {split: [] for split in LIMITS}
    for test, ask in TESTS.items():
        for split, questions in collect_questions(synsets, ask).items():
            splits[split] += add_choices(questions, test)
    return drop_leaks(splits, lambda row: f"{row['task']}: {row['question']}")


def limit_rows(rows: list[Row], limit: int) -> list[Row]:
    """Return at most `limit` rows of each test."""
    chosen: list[Row] = []
    for test in TESTS:
        mine = [row for row in rows if row["task"] == test]
        chosen += sample(mine, limit, lambda row: str(row["id"]))
    return chosen


def build(folder: Path) -> None:
    """Write the splits to `folder`."""
    debian = Apt.open()
    splits = split_rows(wordnet.read_synsets(debian.unpack(wordnet.PACKAGE)))
    source = {
        "what": f"multiple choice about the meanings of words: {', '.join(TESTS)}",
        "package": {"name": wordnet.PACKAGE, "release": debian.release},
        "licence": "WordNet licence",
        "split": "hash of the synset that a question is about; training questions are about and "
        "answered by training synsets only; held-out questions that occur in training are dropped",
    }
    limited = {split: limit_rows(rows, LIMITS[split]) for split, rows in splits.items()}
    write_splits(folder, limited, source)
