"""Rules that extract answers, and the accuracy of multiple choice."""

from __future__ import annotations

from typing import Any

import pytest

from unipeft_run.data.tasks.choice_wordings import wording_of
from unipeft_run.data.tasks.questions import Question
from unipeft_run.evaluation.answers import (
    AnswerRule,
    first_letter,
    first_match,
    last_number,
    score_answers,
    text_after,
)
from unipeft_run.evaluation.metrics.choices import Likelihoods, Reference, score_choices

ANSWERS = ("answer1", "answer2", "answer3")


@pytest.mark.parametrize(
    ("text", "words", "found"),
    [
        ("the correct answer is answer2", ANSWERS, "answer2"),
        ("answer3, not answer1", ANSWERS, "answer3"),
        ("Answer1 or ANSWER2", ANSWERS, None),
        ("", ANSWERS, None),
        ("untrue", ("true", "false"), "true"),
        ("answer12", ("answer1", "answer12"), "answer12"),
        ("a.b", ("a.b", "axb"), "a.b"),
        ("axb", ("a.b",), None),
    ],
)
def test_first_match(text: str, words: tuple[str, ...], found: str | None) -> None:
    assert first_match(text, words) == found


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("48 / 2 = 24.\n#### 72", 72.0),
        ("it costs 1,234.50 dollars", 1234.5),
        ("from 3 to -4", -4.0),
        ("5-3", -3.0),
        ("about 7.", 7.0),
        (".5", 5.0),
        ("none", None),
        ("", None),
    ],
)
def test_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "letter"), [("The answer is (B)", "B"), ("f E A", "E"), ("b", None), ("", None)]
)
def test_first_letter(text: str, letter: str | None) -> None:
    assert first_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "rest"),
    [("so #### 7 ", "7"), ("#### 1 #### 2", "2"), ("no marker", None), ("ends ####", "")],
)
def test_text_after(text: str, rest: str | None) -> None:
    assert text_after(text, "####") == rest


@pytest.mark.parametrize(
    ("rule", "prediction", "reference", "same"),
    [
        (AnswerRule("last_number"), "is 72", "#### 72.0", True),
        (AnswerRule("last_number"), "72.0009", "72", True),
        (AnswerRule("last_number"), "72.0011", "72", False),
        (AnswerRule("last_number"), "none", "none", False),
        (AnswerRule("first_letter"), "B because", "B", True),
        (AnswerRule("text_after", marker=":"), "a: x", "b: x", True),
        (AnswerRule("first_match", words=("yes", "no")), "yes no", "no", False),
    ],
)
def test_answers_agree(rule: AnswerRule, prediction: str, reference: str, same: bool) -> None:
    assert rule.agree(prediction, reference) is same
    scores = score_answers(rule, [prediction, reference], [reference, prediction])
    assert scores.metrics == {"accuracy": 100.0 * same}
    assert scores.per_example == [100.0 * same] * 2


# Multiple choice


def refer(answer: int, task: str = "") -> Reference:
    return Reference(answer, ANSWERS, (*ANSWERS, "answer4"), task)


@pytest.mark.parametrize(
    ("prediction", "right", "normalised"),
    [
        ("the correct answer is answer2", True, True),
        ("answer4 answer2", False, False),  # the first answer word counts
        ("Answer2", False, False),
        (Likelihoods([-5.0, -4.0, -6.0], [5, 1, 6]), True, False),
        (Likelihoods([-5.0, -9.0, -8.0], [1, 9, 2]), False, True),
        (Likelihoods([-4.0, -4.0, -4.0], [1, 1, 1]), False, False),  # the first of several
    ],
)
def test_choices(prediction: Any, right: bool, normalised: bool) -> None:
    assert refer(1).is_right(prediction) is right
    assert refer(1).is_right(prediction, normalised=True) is normalised


def test_several_tests_count_equally() -> None:
    references = [refer(0, "a"), refer(0, "a"), refer(0, "a"), refer(0, "b")]
    scores = score_choices(["answer1", "answer2", "", "answer1"], references)
    assert scores.metrics == {
        "accuracy": pytest.approx((100 / 3 + 100) / 2),
        "accuracy_a": pytest.approx(100 / 3),
        "accuracy_b": 100.0,
    }
    assert scores.per_example == [100.0, 0.0, 0.0, 100.0]
    assert "plain mean" in scores.signatures["accuracy"]
    assert "plain mean" not in scores.signatures["accuracy_a"]


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_equal_accuracies_of_several_tests_are_equal_floats(wrong: int) -> None:
    references = [refer(0, test) for test in "abc" for _ in range(7)]
    answers = ["answer1"] * len(references)
    answers[7 * wrong] = answers[(7 * wrong + 9) % 21] = answers[(7 * wrong + 10) % 21] = "answer2"
    assert score_choices(answers, references).metrics["accuracy"] == 100 * 18 / 21


def test_likelihoods_have_two_accuracies() -> None:
    predictions = [Likelihoods([-5.0, -9.0], [1, 9]), Likelihoods([-1.0, -2.0], [1, 1])]
    scores = score_choices(predictions, [refer(0), refer(0)])
    assert scores.metrics == {"accuracy": 100.0, "accuracy_normalised": 50.0}
    assert "per token" in scores.signatures["accuracy_normalised"]


@pytest.mark.parametrize(
    ("word", "searched", "answer"),
    [("answer2", "answer5", 1), ("true", "false", 0), ("solution1", "solution2", 0)],
)
def test_a_word_alone_is_a_reference(word: str, searched: str, answer: int) -> None:
    reference = Reference.of_word(word)
    assert (reference.word, reference.answer) == (word, answer)
    assert searched in reference.searched


QUESTION = Question("When?", ["now", "then"], 1, "")
INSTRUCTIONS = {
    "boolq": (
        "Please answer the following question with true or false, question: When?\n\n"
        "Answer format: now/then"
    ),
    "piqa": (
        "Please choose the correct solution to the question: When?\n\n"
        "Solution1: now\n\nSolution2: then\n\nAnswer format: solution1/solution2"
    ),
    "arc_easy": (
        "Please choose the correct answer to the question: When?\n\n"
        "Answer1: now Answer2: then\n\nAnswer format: answer1/answer2"
    ),
    "hellaswag": (
        "Please choose the correct ending to complete the given sentence: When?\n\n"
        "Ending1: now Ending2: then\n\nAnswer format: ending1/ending2"
    ),
    "winogrande": (
        "Please choose the correct answer to fill in the blank to complete the given sentence: "
        "When?\n\nOption1: now Option2: then\n\nAnswer format: option1/option2"
    ),
}


@pytest.mark.parametrize("test", INSTRUCTIONS)
def test_wordings_are_those_of_llm_adapters(test: str) -> None:
    assert wording_of(test).instruct(QUESTION) == INSTRUCTIONS[test]


@pytest.mark.parametrize(
    ("test", "last"),
    [("arc_easy", "answer5"), ("hellaswag", "ending4"), ("piqa", "solution2"), ("boolq", "then")],
)
def test_the_words_that_are_searched(test: str, last: str) -> None:
    assert wording_of(test).searched_words(QUESTION)[-1] == last
