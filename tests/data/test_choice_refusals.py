"""Multiple choice: labels and names of tests that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_causal import QUESTIONS, choice_task

from unipeft_run.errors import UserError

LETTERED = {"text": ["up", "down"], "label": ["A", "B"]}


@pytest.mark.parametrize("name", ["x/../../../evil", "a/b/c", "..", ".a", "", "a\n", "a" * 81])
def test_a_test_must_be_able_to_name_a_file(name: str, tmp_path: Path) -> None:
    rows = [{**row, "task": "a"} for row in QUESTIONS]
    rows[2]["task"] = name
    task = choice_task(tmp_path, rows=rows, format="mixed")
    with pytest.raises(UserError, match=r"example 3: .* cannot name a test") as refusal:
        task.load(["test"])
    assert json.dumps(name)[1:20].rstrip('"') in str(refusal.value)
    with pytest.raises(UserError, match=r"input 1: .* cannot name a test"):
        task.complete_inputs({"question": ["who?"], "choices": [["me"]], "task": [name]})


@pytest.mark.parametrize("name", ["arc_easy", "Ωmega 2.1", "a-b+c", "a" * 80])
def test_usual_names_of_tests(name: str, tmp_path: Path) -> None:
    rows = [{**row, "task": name} for row in QUESTIONS]
    task = choice_task(tmp_path, rows=rows, format="mixed")
    assert task.load(["test"])["test"]["task"] == [name] * len(QUESTIONS)


@pytest.mark.parametrize(
    ("form", "row", "message"),
    [
        ("piqa", {"goal": "g", "sol1": "a", "sol2": "b", "label": "up"},
         "piqa, example 1: label 'up' is not a whole number"),
        ("arc", {"question": "q", "choices": LETTERED, "answerKey": "E"},
         "arc, example 1: label 'E' is none of A, B"),
        ("boolq", {"question": "q", "answer": "maybe"},
         "boolq, example 1: label 'maybe' is none of true, false"),
    ],
)  # fmt: skip
def test_a_wrong_label_is_one_sentence(
    form: str, row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    task = choice_task(tmp_path, rows=[row], format=form, name=form)
    with pytest.raises(UserError) as refusal:
        task.load(["test"])
    assert str(refusal.value) == message
