"""Multiple choice and word problems from the data sets' own columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_text
from datasets import ClassLabel, Dataset, DatasetDict
from tiny_causal import QUESTIONS, choice_task, write

from unipeft_run.data.tasks.commonsense import HELD_OUT, TESTS, Commonsense
from unipeft_run.data.tasks.gsm8k import GSM8K
from unipeft_run.data.tasks.multiple_choice import MultipleChoice
from unipeft_run.data.text_encoder import TextEncoder
from unipeft_run.errors import UserError

LETTERED = {"text": ["up", "down", "left"], "label": ["A", "B", "C"]}
# format -> an example with the data set's own columns, and the question it stands for
EXAMPLES: dict[str, tuple[dict[str, Any], tuple[str, list[str], int]]] = {
    "boolq": (
        {"question": "is it so", "passage": "It is.", "answer": False},
        ("is it so?", ["true", "false"], 1),
    ),
    "piqa": (
        {"goal": "open a jar", "sol1": "turn", "sol2": "throw", "label": 1},
        ("open a jar", ["turn", "throw"], 1),
    ),
    "siqa": (
        {
            "context": "Ann ran.",
            "question": "Why?",
            "label": "3",
            "answerA": "late",
            "answerB": "bored",
            "answerC": "afraid",
        },
        ("Ann ran. Why?", ["late", "bored", "afraid"], 2),
    ),
    "hellaswag": (
        {
            "activity_label": "Cooking",
            "ctx": "He cuts",
            "label": "0",
            "endings": ["an onion", "the air", "a line", "class"],
        },
        ("Cooking: He cuts", ["an onion", "the air", "a line", "class"], 0),
    ),
    "winogrande": (
        {"sentence": "Ann saw Eve as _ left.", "option1": "Ann", "option2": "Eve", "answer": "2"},
        ("Ann saw Eve as _ left.", ["Ann", "Eve"], 1),
    ),
    "arc": (
        {"id": "Q1", "question": "Where do apples fall?", "choices": LETTERED, "answerKey": "B"},
        ("Where do apples fall?", ["up", "down", "left"], 1),
    ),
    "openbookqa": (
        {"id": "7", "question_stem": "Apples fall", "choices": LETTERED, "answerKey": "B"},
        ("Apples fall", ["up", "down", "left"], 1),
    ),
    "rows": (
        {"question": "who?", "choices": ["me", "you"], "answer": 1, "task": "ignored"},
        ("who?", ["me", "you"], 1),
    ),
}


def read(task: MultipleChoice) -> tuple[str, list[str], int]:
    row = task.load(["test"])["test"][0]
    return row["question"], row["choices"], row["answer"]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_local_files_have_the_data_sets_own_columns(name: str, suffix: str, tmp_path: Path) -> None:
    example, question = EXAMPLES[name]
    task = choice_task(tmp_path, rows=[example], format=name)
    if suffix == "parquet":
        for file in list(tmp_path.glob("*.jsonl")):
            Dataset.from_list([example]).to_parquet(file.with_suffix(".parquet"))
            file.unlink()
    assert read(task) == question
    data = task.load(["test"])["test"]
    assert data["task"] == ["arc_challenge"]
    assert task.ids(data) == [str(example.get("id", 0))]


@pytest.mark.parametrize("name", EXAMPLES)
def test_new_inputs_need_no_answer(name: str, tmp_path: Path) -> None:
    example, question = EXAMPLES[name]
    task = choice_task(tmp_path, rows=[example], format=name)
    flat = {**example, "choices.text": LETTERED["text"], "choices.label": LETTERED["label"]}
    inputs = {column: [flat[column]] for column in task.input_columns}
    found = task.complete_inputs(inputs)
    assert (found["question"], found["choices"]) == ([question[0]], [question[1]])
    assert found["answer"] == [0]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rows", {"answer": 2}, "example 1: the right choice is number 3 of 2"),
        ("rows", {"answer": "x"}, "example 1: label 'x' is not a whole number"),
        ("rows", {"choices": "me or you"}, "not a list of texts"),
        ("rows", {"choices": ["me", 3]}, "column 'choices' holds 3, not text"),
        ("arc", {"answerKey": "D"}, "example 1: "),
        ("piqa", {"label": -1}, "the right choice is number 0 of 2"),
    ],
)
def test_wrong_examples_are_refused(
    name: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    task = choice_task(tmp_path, rows=[{**EXAMPLES[name][0], **change}], format=name)
    with pytest.raises(UserError, match=message):
        task.load(["test"])


def test_unknown_formats_and_fields_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task\.format=piqu is unknown \(did you mean piqa\?\)"):
        choice_task(tmp_path, format="piqu")
    with pytest.raises(UserError, match=r"task\.prompt_template: field=answer is unknown"):
        choice_task(tmp_path, prompt_template="{answer}")


def test_several_tests_take_turns_within_a_limit(tmp_path: Path) -> None:
    rows = [{**QUESTIONS[0], "task": test} for test in "aaabbc"]
    task = choice_task(tmp_path, rows=rows, format="mixed", limit={"test": 5})
    splits = task.load()
    assert splits["test"]["task"] == ["a", "b", "c", "a", "b"]
    assert len(splits["train"]) == 6
    assert task.parts(splits["test"]) == {"a": [0, 3], "b": [1, 4], "c": [2]}


def test_the_baseline_is_the_most_frequent_answer_of_each_test(tmp_path: Path) -> None:
    answers = {"piqa": (1, 1, 0), "boolq": (0, 0, 1)}
    rows = [
        {"question": "?", "choices": ["true", "false"], "answer": answer, "task": test}
        for test, places in answers.items()
        for answer in places
    ]
    task = choice_task(tmp_path, rows=rows, format="mixed")
    splits = task.load()
    assert set(task.baseline(splits)) == {"solution2", "true"}
    scores = task.score(task.baseline(splits), task.references(splits["test"]))
    assert scores.metrics["accuracy_boolq"] == pytest.approx(200 / 3)


def test_words_alone_can_be_scored(tmp_path: Path) -> None:
    scores = choice_task(tmp_path).score(["answer2.", "answer1"], ["answer2", "answer2"])
    assert scores.metrics == {"accuracy": 50.0}


# The hub


def hub_data(name: str, count: int) -> Dataset:
    data = Dataset.from_list([EXAMPLES[name][0]] * count)
    return data.cast_column("label", ClassLabel(names=["0", "1"])) if name == "piqa" else data


def test_commonsense_joins_eight_tests_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_hub(task: str, *, path: str, name: str | None, revision: str | None) -> Any:
        asked.append((path, name, revision))
        form = next(test.format for test in TESTS.values() if test.path == path)
        sizes = {"train": 40, "validation": 2, "test": 3}
        return DatasetDict({split: hub_data(form, size) for split, size in sizes.items()})

    monkeypatch.setattr("unipeft_run.data.tasks.hub.load_hub", load_hub)
    task = Commonsense(
        name="commonsense",
        prompt_template="{instruction}",
        response_template="{answer}",
        max_source_length=9,
        max_target_length=9,
        limit={"train": 16},
    )
    splits = task.load()
    assert len(asked) == 8 + 5 + 8  # winogrande has six sizes for training
    assert ("ybisk/piqa", None, "refs/convert/parquet") in asked
    assert {name: len(data) for name, data in splits.items()} == {
        "train": 16,
        "validation": HELD_OUT,
        "test": 5 * 2 + 3 * 3,  # three data sets have labels for their tests
    }
    assert splits["train"]["task"][:8] == list(TESTS)
    assert set(splits["test"]["task"]) == set(TESTS)
    assert task.fingerprints() == {}
    only_test = task.load(["test"])
    assert only_test.keys() == {"test"}


def test_a_single_test_reads_the_validation_set_as_test(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = DatasetDict(train=hub_data("piqa", 3), validation=hub_data("piqa", 2))
    monkeypatch.setattr("unipeft_run.data.tasks.hub.load_hub", lambda task, **hub: loaded)
    task = MultipleChoice(
        name="piqa",
        hub={"path": "ybisk/piqa"},
        format="piqa",
        prompt_template="{instruction}",
        response_template="{answer}",
        max_source_length=9,
        max_target_length=9,
    )
    assert {name: len(data) for name, data in task.load().items()} == {
        "train": 3,
        "validation": 2,
        "test": 2,
    }


# GSM8K


def test_word_problems_lose_their_annotations(tmp_path: Path) -> None:
    answer = "48/2 = <<48/2=24>>24. Together 72.\n#### 72"
    rows = [{"question": "How many?", "answer": answer}]
    task = GSM8K(
        name="gsm8k",
        path=write(tmp_path, rows),
        prompt_template="{question}\n",
        response_template="{answer}",
        max_source_length=9,
        max_target_length=9,
    )
    splits = task.load()
    clean = "48/2 = 24. Together 72.\n#### 72"
    assert task.fill_fields(splits["train"][:])["answer"] == [clean]
    assert task.references(splits["test"]) == [clean]
    assert task.baseline(splits) == ["#### 72"]
    assert task.input_columns == ("question",)
    scores = task.score(["so 1,072", "it is 72.0"], [clean, clean])
    assert scores.metrics == {"accuracy": 50.0}
    assert json.dumps(scores.per_example) == "[0.0, 100.0]"


def test_other_rules_for_the_answer_of_a_problem(tmp_path: Path) -> None:
    rows = [{"question": "Which?", "answer": f"So the answer is ({letter})"} for letter in "BAB"]
    task = GSM8K(
        name="gsm8k",
        path=write(tmp_path, rows),
        extract="first_letter",
        prompt_template="{question}\n",
        response_template="{answer}",
        max_source_length=9,
        max_target_length=9,
    )
    splits = task.load()
    assert task.baseline(splits)[0] == "#### B"
    score = task.score(task.baseline(splits), task.references(splits["test"]))
    assert score.metrics["accuracy"] == pytest.approx(200 / 3)


def test_compared_choices_are_whole_and_never_empty(tmp_path: Path) -> None:
    encoder = TextEncoder(tiny_text.bart_tokenizer())
    long = "the cat sat on the mat " * 4
    rows = [{"question": "who?", "choices": [f"{long}cat", f"{long}dog"], "answer": 1}]
    rule = {"format": "rows", "by": "likelihood"}
    task = choice_task(tmp_path, rows=rows, max_target_length=6, **rule)
    (choices,) = task.encode_choices(task.load()["test"][:], encoder)
    assert choices[0] != choices[1]
    assert min(map(len, choices)) > 6
    rows = [{"question": "who?", "choices": ["", "dog"], "answer": 1}]
    task = choice_task(tmp_path / "other", rows=rows, response_template="{choice}", **rule)
    with pytest.raises(UserError, match=r"a choice of 'who\?' is empty"):
        task.encode_choices(task.load()["test"][:], encoder)
