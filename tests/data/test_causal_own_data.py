"""Prompts and responses on the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_causal import PAIRS, pairs_task

from unipeft_run.errors import UserError


def test_templates_may_name_any_column(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("ask,more,reply\nwhy,because,yes\n" * 3)
    task = pairs_task(
        tmp_path,
        path=None,
        data=str(tmp_path / "data.csv"),
        prompt="ask",
        response="reply",
        prompt_template="{prompt} ({more})",
    )
    assert task.columns.text == ("ask", "more", "reply")
    assert task.input_columns == ("ask", "more")
    fields = task.fill_fields({"ask": ["a"], "more": ["b"], "reply": ["c"]})
    assert fields == {"prompt": ["a"], "more": ["b"], "response": ["c"]}


def test_the_template_need_not_name_the_prompt(tmp_path: Path) -> None:
    assert pairs_task(tmp_path, prompt_template="{question}").input_columns == ("question",)
    assert pairs_task(tmp_path, prompt_template="Say:").input_columns == ("prompt",)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"response": "prompt"}, "task.prompt and task.response both name the column 'prompt'"),
        ({"prompt_template": "{response}"}, "contains the response (column 'response')"),
        ({"response_template": "{prompt}"}, "field=prompt is unknown"),
        ({"extract": "first_match"}, "task.extract=first_match needs task.answer_words"),
        ({"extract": "text_after"}, "task.extract=text_after needs task.marker"),
        ({"metric": "accuracy"}, "task.metric=accuracy compares classes"),
        ({"selection": "bleu"}, "task.selection=bleu is unknown"),
    ],
)
def test_wrong_settings_are_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as problem:
        pairs_task(tmp_path, **changed)
    assert message in str(problem.value)


def test_the_accuracy_of_answers_is_the_primary_metric(tmp_path: Path) -> None:
    task = pairs_task(tmp_path, extract="first_match", answer_words=("yes", "no"))
    assert task.metrics == ("accuracy", "exact_match", "rougeL")
    assert (task.primary, task.selection_rule) == ("accuracy", ("accuracy", "max"))
    scores = task.score(["yes!", "no"], ["yes", "yes"])
    assert (scores.metrics["accuracy"], scores.metrics["exact_match"]) == (50.0, 0.0)
    assert scores.per_example == [100.0, 0.0]
    assert pairs_task(tmp_path).primary == "exact_match"


def test_keys_of_other_rules_are_inert(tmp_path: Path) -> None:
    assert {"answer_words", "marker"} <= pairs_task(tmp_path).inert_keys().keys()
    rule = pairs_task(tmp_path, extract="text_after", marker=":")
    assert "marker" not in rule.inert_keys()


def test_the_baseline_repeats_a_response(tmp_path: Path) -> None:
    task = pairs_task(tmp_path)
    assert task.baseline(task.load()) == [PAIRS[0]["response"]] * 4


def test_a_prompt_with_several_responses_stays_in_one_split(tmp_path: Path) -> None:
    lines = [f"ask {n % 60},reply {n}" for n in range(180)]
    (tmp_path / "data.csv").write_text("\n".join(["prompt,response", *lines]) + "\n")
    splits = pairs_task(tmp_path, path=None, data=str(tmp_path / "data.csv")).load()
    prompts = {name: set(data["prompt"]) for name, data in splits.items()}
    assert all(prompts.values())
    assert not prompts["train"] & (prompts["validation"] | prompts["test"])


def test_references_are_what_the_response_template_writes(tmp_path: Path) -> None:
    task = pairs_task(
        tmp_path,
        response_template=" The answer is {response}.",
        extract="text_after",
        marker="answer is",
    )
    references = task.references(task.load()["train"])
    assert all(text.startswith("The answer is ") for text in references)
    scores = task.score(references, references)
    assert scores.metrics == {"accuracy": 100.0, "exact_match": 100.0, "rougeL": 100.0}
    assert task.baseline(task.load())[0] in references
