"""Multiple choice about WordNet (commonsense): eight tests on the meanings of words.

A test question is about a held-out synset. The wrong choices are right answers to other questions
of the same test and part of speech, so that a guess without the question is right in one of four.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unipeft_run.miniatures.sources import wordnet
from unipeft_run.miniatures.sources.apt import Apt
from unipeft_run.miniatures.sources.rows import Row, write_splits
from unipeft_run.miniatures.sources.split import Splits, drop_leaks, hash_fraction, sample
from unipeft_run.miniatures.sources.wordnet import ANTONYM, HYPERNYM, HYPONYM, Synset

CHOICES = 4
LIMITS = {"train": 2500, "validation": 60, "test": 200}  # questions of each test
LONGEST = 120  # characters of a definition or an example


PARTS = {"n": "noun", "v": "verb", "a": "adjective", "r": "adverb"}
ASKED = {"n": 0.11, "v": 0.24, "a": 0.21, "r": 1.0}  # shares that make the four equally frequent
SORTS = {
    "04": "act",
    "05": "animal",
    "06": "artifact",
    "07": "attribute",
    "08": "body",
    "09": "thought",
    "10": "communication",
    "11": "event",
    "12": "feeling",
    "13": "food",
    "14": "group",
    "15": "place",
    "17": "natural object",
    "18": "person",
    "19": "phenomenon",
    "20": "plant",
    "21": "possession",
    "22": "process",
    "23": "quantity",
    "24": "relation",
    "25": "shape",
    "26": "state",
    "27": "substance",
    "28": "time",
}  # the topics of the lexicographers' files of nouns


@dataclass(frozen=True)
class Question:
    """A question about `subject`; `about` and `answered` are the synsets of question and answer.

    Wrong choices are answers to questions of the same `pool`.
    """

    text: str
    answer: str
    subject: str
    about: Synset
    answered: Synset
    pool: str


Ask = Callable[[Synset, Mapping[str, Synset]], Iterator[Question]]


def ask_part(synset: Synset, synsets: Mapping[str, Synset]) -> Iterator[Question]:
    part = synset.part
    if hash_fraction(f"part: {synset.name}") < ASKED[part]:
        text = f'What part of speech is a word that means "{synset.definition}"?'
        yield Question(text, PARTS[part], synset.words[0], synset, synset, "all")


def ask_sort(template: str, synset: Synset, synsets: Mapping[str, Synset]) -> Iterator[Question]:
    """Ask for the topic of a noun, given its word or its definition."""
    if synset.file in SORTS:
        text = template.format(word=synset.words[0], definition=synset.definition)
        yield Question(text, SORTS[synset.file], synset.words[0], synset, synset, "n")


def ask_definition(synset: Synset, synsets: Mapping[str, Synset]) -> Iterator[Question]:
    word = synset.words[0]
    text = f'What does "{word}" mean?'
    yield Question(text, synset.definition, word, synset, synset, synset.part)


def ask_synonym(synset: Synset, synsets: Mapping[str, Synset]) -> Iterator[Question]:
    if len({word.lower() for word in synset.words[:2]}) == 2:
        word, other = synset.words[:2]
        text = f'Which word means the same as "{word}"?'
        yield Question(text, other, word, synset, synset, synset.part)


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
                yield Question(template.format(word), answer, word, synset, other, other.part)
            return


TESTS: dict[str, Ask] = {
    "part_of_speech": ask_part,
    "sort_by_word": partial(ask_sort, 'What sort of thing is "{word}"?'),
    "sort_by_definition": partial(ask_sort, 'What sort of thing is "{definition}"?'),
    "definition": ask_definition,
    "synonym": ask_synonym,
    "antonym": partial(ask_relation, ANTONYM, 'What is the opposite of "{}"?'),
    "kind_of": partial(ask_relation, HYPERNYM, 'What is "{}" a kind of?'),
    "example_of": partial(ask_relation, HYPONYM, 'Which of these is a kind of "{}"?'),
}


def collect_questions(synsets: Mapping[str, Synset], ask: Ask) -> dict[str, list[Question]]:
    """Return the questions about common synsets by split; in training, both synsets are of it."""
    asked = [
        question
        for synset in synsets.values()
        if synset.count and len(synset.definition) <= LONGEST
        for question in ask(synset, synsets)
    ]
    found: dict[str, list[Question]] = {"train": [], "validation": [], "test": []}
    for question in drop_ambiguous(asked):
        split = question.about.split
        if split != "train" or question.answered.split == "train":
            found[split].append(question)
    return found


def drop_ambiguous(questions: list[Question]) -> list[Question]:
    """Drop questions that have different answers, because a word has several senses."""
    answers: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        answers[question.text].add(question.answer)
    return [question for question in questions if len(answers[question.text]) == 1]


def add_choices(questions: list[Question], test: str) -> Iterator[Row]:
    """Yield rows with three answers to other questions of the same pool."""
    pools: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        pools[question.pool].append(question)
    for question in questions:
        draw = random.Random(int(2**53 * hash_fraction(f"{test}: {question.about.name}")))
        choices = [question.answer, *draw_wrong(question, pools[question.pool], draw)]
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
