"""The automatic split: sizes, duplicates, classes, and independence of the order of rows."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from unipeft_run.data.tasks.automatic_split import MOST, SplitRule, divide
from unipeft_run.errors import UserError

TEXTS = [f"text {number}" for number in range(200)]
SIZES = {"validation": 20, "test": 30}


def split_texts(texts: list[str], seed: int = 0) -> dict[str, set[str]]:
    rows = divide(texts, None, SIZES, seed)
    return {split: {texts[row] for row in found} for split, found in rows.items()}


def test_every_row_is_in_one_split_of_its_size() -> None:
    rows = divide(TEXTS, None, SIZES, seed=0)
    assert {split: len(found) for split, found in rows.items()} == {**SIZES, "train": 150}
    assert sorted(row for found in rows.values() for row in found) == list(range(200))


def test_the_split_depends_on_texts_and_seed_but_not_on_their_order() -> None:
    shuffled = random.Random(1).sample(TEXTS, len(TEXTS))
    assert split_texts(shuffled) == split_texts(TEXTS)
    assert split_texts(TEXTS, seed=1) != split_texts(TEXTS)


def test_a_few_more_rows_move_few_examples() -> None:
    before, after = split_texts(TEXTS), split_texts([*TEXTS, "one", "two", "three"])
    assert len(before["test"] & after["test"]) >= 25


def test_equal_texts_stay_together() -> None:
    texts = [f"text {number % 60}" for number in range(200)]
    found = split_texts(texts)
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    assert not found["validation"] & found["test"]


def test_a_large_group_of_equal_texts_is_trained_on() -> None:
    texts = [*["same"] * 20, *["twice"] * 2, *(f"text {number}" for number in range(4))]
    for seed in range(5):
        rows = divide(texts, None, {"validation": 1, "test": 3}, seed)
        assert set(range(20)) <= set(rows["train"])
        assert (len(rows["validation"]), len(rows["test"])) == (1, 3)


def test_a_split_without_room_for_any_group_gets_the_smallest() -> None:
    texts = [*["a"] * 9, *["b"] * 3, *["c"] * 2]
    rows = divide(texts, None, {"validation": 1, "test": 1}, seed=0)
    assert {split: len(found) for split, found in rows.items()} == {
        "train": 9, "validation": 2, "test": 3
    }  # fmt: skip
    assert divide(texts[:12], None, {"validation": 1, "test": 1}, seed=0)["test"] == []


def test_classes_keep_their_shares() -> None:
    classes = ["rare" if number % 10 == 0 else "common" for number in range(200)]
    rows = divide(TEXTS, classes, SIZES, seed=0)
    counts = {split: Counter(classes[row] for row in found) for split, found in rows.items()}
    assert (counts["validation"]["rare"], counts["test"]["rare"]) == (2, 3)


def test_a_single_example_of_a_class_is_trained_on() -> None:
    classes = ["once", *["common"] * 199]
    assert 0 in divide(TEXTS, classes, SIZES, seed=0)["train"]


@pytest.mark.parametrize(
    ("rule", "total", "expected"),
    [
        (SplitRule(), 400, (40, 40)),
        (SplitRule(), 3, (1, 1)),
        (SplitRule(), 10**6, (MOST, MOST)),
        (SplitRule(validation=0.2, test=7), 50, (10, 7)),
    ],
)
def test_sizes(rule: SplitRule, total: int, expected: tuple[int, int]) -> None:
    sizes = rule.sizes(("validation", "test"), total)
    assert (sizes["validation"], sizes["test"]) == expected


def test_sizes_that_leave_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="none of the 10 examples for training"):
        SplitRule(validation=0.5, test=5).sizes(("validation", "test"), 10)
