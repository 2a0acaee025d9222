"""WordNet's multiple choice and the word problems: parsing, neutral choices, no leaks."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from unipeft_run.miniatures.sources import word_meanings, word_problems, wordnet
from unipeft_run.miniatures.sources.rows import read_jsonl
from unipeft_run.miniatures.sources.wordnet import HYPERNYM, Pointer, Synset

NOUN = (
    "02121620 05 n 02 cat 0 true_cat 0 002 @ 02120997 n 0000 #p 00000001 n 0102 0 "
    '| feline mammal usually having thick soft fur; "the cat sat"; "a black cat"  '
)
ADJECTIVE = "00003939 00 s 01 dying(p) 0 001 ! 00003356 a 0101 | eagerly desirous  "


def make_synset(number: int, *pointers: Pointer) -> Synset:
    words = (f"word{number}", f"other{number}")
    examples = (f"this is a word{number} here",)
    return Synset(f"n{number:08}", "05", words, f"the thing {number}", examples, pointers, count=1)


@pytest.fixture(scope="module")
def synsets() -> dict[str, Synset]:
    """Return 400 synsets; each is a kind of the next."""
    names = [f"n{i:08}" for i in range(401)]
    made = [make_synset(i, Pointer(HYPERNYM, names[i + 1], 0, 0)) for i in range(400)]
    return {synset.name: synset for synset in [*made, make_synset(400)]}


def test_a_line_of_wordnet_is_parsed() -> None:
    counts = {"cat%1:05:00": 18, "true_cat%1:05:00": 1}
    cat = wordnet.parse_line(NOUN, counts)
    assert (cat.name, cat.file, cat.words, cat.count) == (
        "n02121620",
        "05",
        ("cat", "true cat"),
        19,
    )
    assert cat.definition == "feline mammal usually having thick soft fur"
    assert cat.examples == ("the cat sat", "a black cat")
    assert cat.pointers == (
        Pointer("@", "n02120997", 0, 0),
        Pointer("#p", "n00000001", 1, 2),
    )
    dying = wordnet.parse_line(ADJECTIVE, {})
    assert (dying.name, dying.part, dying.words, dying.count) == ("a00003939", "a", ("dying",), 0)


def test_a_package_is_read(tmp_path: Path) -> None:
    folder = tmp_path / wordnet.FOLDER
    folder.mkdir(parents=True)
    for part in wordnet.PARTS:
        line = NOUN if part == "noun" else ""
        (folder / f"data.{part}").write_text(f"  1 a licence\n{line}\n".rstrip("\n") + "\n")
    (folder / "cntlist.rev").write_text("cat%1:05:00:: 1 18\ndying%5:00:00:eager:00 1 3\n")
    assert wordnet.read_counts(folder / "cntlist.rev")["dying%5:00:00"] == 3
    (cat,) = wordnet.read_synsets(tmp_path).values()
    assert cat.count == 18


def test_training_questions_know_no_held_out_synset(synsets: dict[str, Synset]) -> None:
    for ask in word_meanings.TESTS.values():
        found = word_meanings.collect_questions(synsets, ask)
        for split, questions in found.items():
            assert all(question.about.split == split for question in questions)
        assert all(question.answered.split == "train" for question in found["train"])


def test_choices_are_neutral_and_distinct(synsets: dict[str, Synset]) -> None:
    splits = word_meanings.split_rows(synsets)
    assert splits == word_meanings.split_rows(synsets)
    rows = [row for rows in splits.values() for row in rows]
    assert all(len(set(row["choices"])) == word_meanings.CHOICES for row in rows)
    positions = Counter(row["answer"] for row in rows)
    assert max(positions.values()) < 0.35 * len(rows)
    assert {row["task"] for row in rows} == {"definition", "synonym", "kind_of"}
    row = next(row for row in rows if row["task"] == "definition")
    number = int(row["id"].removeprefix("definition/n"))
    assert row["question"] == f'What does "word{number}" mean?'
    assert row["choices"][row["answer"]] == f"the thing {number}"


def test_ambiguous_questions_are_dropped(synsets: dict[str, Synset]) -> None:
    first, second = synsets["n00000000"], synsets["n00000001"]
    same = replace(second, words=("word0", "other"), file="06")
    known = {first.name: first, same.name: same}
    found = word_meanings.collect_questions(known, word_meanings.TESTS["sort_by_word"])
    assert not any(found.values())
    found = word_meanings.collect_questions(known, word_meanings.TESTS["sort_by_definition"])
    answers = [question.answer for questions in found.values() for question in questions]
    assert sorted(answers) == ["animal", "artifact"]


def test_a_wrong_choice_is_no_other_right_answer(synsets: dict[str, Synset]) -> None:
    for row in word_meanings.split_rows(synsets)["train"]:
        if row["task"] == "kind_of":
            number = int(row["id"][-8:])
            assert row["choices"][row["answer"]] == f"word{number + 1}"
            assert f"word{number}" not in row["choices"]


def test_each_test_is_limited() -> None:
    rows = [{"task": "antonym", "id": str(i)} for i in range(9)] + [{"task": "synonym", "id": "1"}]
    assert len(word_meanings.limit_rows(rows, 4)) == 5


def test_problems_are_right_and_split_by_their_numbers(tmp_path: Path) -> None:
    word_problems.build(tmp_path)
    keys = {}
    for split in ("train", "validation", "test"):
        rows = read_jsonl(tmp_path / f"{split}.jsonl")
        keys[split] = {word_problems.numbers_key(row) for row in rows}
        assert len(keys[split]) == len(rows)
        for row in rows:
            *steps, result = row["answer"].splitlines()
            for step in steps:
                left, right = step.rstrip(".").split(" = ")
                assert eval(left) == int(right)
            assert result == f"#### {steps[-1].split(' = ')[1].rstrip('.')}"
    assert not keys["train"] & (keys["validation"] | keys["test"])
    assert not keys["validation"] & keys["test"]
    counts = json.loads((tmp_path / "source.json").read_text())["counts"]
    assert counts["train"] > 10 * counts["test"]
