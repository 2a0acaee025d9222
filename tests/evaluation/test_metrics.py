"""Metrics, on texts whose scores are known or can be counted by hand."""

from __future__ import annotations

import pytest

from unipeft_run.data.tasks.naive_bayes import NaiveBayes
from unipeft_run.evaluation.metrics import Scores, accuracy, bleu, rouge, split_sentences


def test_accuracy_in_percent() -> None:
    scores = accuracy([1, 0, 2, 2], [1, 0, 1, 2])
    assert scores.metrics == {"accuracy": 75.0}
    assert scores.per_example == [100.0, 100.0, 0.0, 100.0]


def test_rouge_by_hand() -> None:
    scores = rouge(["the cat sat"], ["the cat lay down"]).metrics
    assert scores["rouge1"] == pytest.approx(100 * 2 * 2 / (3 + 4))
    assert scores["rouge2"] == pytest.approx(100 * 2 * 1 / (2 + 3))
    assert scores["rougeL"] == pytest.approx(100 * 2 * 2 / (3 + 4))


def test_rouge_stems_and_averages() -> None:
    scores = rouge(["two cats", "no"], ["two cat", "yes"])
    assert scores.metrics["rouge1"] == pytest.approx(50.0)
    assert scores.per_example == [pytest.approx(100.0), 0.0]


def test_the_two_rouge_ls_differ_when_sentences_change_places() -> None:
    metrics = rouge(["Rain came. Roads shut down."], ["Roads shut down. Rain came."]).metrics
    assert metrics["rougeLsum"] == pytest.approx(100.0)
    assert metrics["rougeL"] == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One fell. Two stood.", ["One fell.", "Two stood."]),
        ('He said "no." Then he left!  Why?', ['He said "no."', "Then he left!", "Why?"]),
        ("Mr. Smith met J. Doe at No. 10.", ["Mr. Smith met J. Doe at No. 10."]),
        ("Version 2.5 is out. 3 people saw it.", ["Version 2.5 is out.", "3 people saw it."]),
        ("no capital. here", ["no capital. here"]),
        ("", [""]),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


ROMANIAN = (
    "Aceast\u0103 \u0219coal\u0103 are \u00eenv\u0103\u021b\u0103tori buni \u00een ora\u0219."
)
CEDILLA = ROMANIAN.replace("\u0219", "\u015f").replace("\u021b", "\u0163")


def test_both_bleus_of_the_same_text_are_perfect() -> None:
    scores = bleu([ROMANIAN, ROMANIAN], [ROMANIAN, ROMANIAN])
    assert scores.metrics == {name: pytest.approx(100.0) for name in ("bleu", "bleu_paper", "chrf")}
    assert len(scores.per_example) == 2


def test_the_papers_bleu_is_blind_to_diacritics() -> None:
    metrics = bleu([CEDILLA], [ROMANIAN]).metrics
    assert metrics["bleu_paper"] == pytest.approx(100.0)
    assert metrics["bleu"] < 60


def signatures(scores: Scores) -> str:
    return " ".join(scores.signatures.values())


def test_every_metric_is_signed() -> None:
    text = ["a b c d e"]
    assert "tok:13a" in signatures(bleu(text, text))
    assert "tok:none|smooth:none" in bleu(text, text).signatures["bleu_paper"]
    assert "Porter" in signatures(rouge(text, text))
    for scores in (bleu(text, text), rouge(text, text), accuracy([1], [1])):
        assert set(scores.signatures) == {*scores.metrics, "per_example"}


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="no predictions"):
        accuracy([], [])
    with pytest.raises(ValueError, match="no predictions"):
        bleu([], [])
    for metric in (rouge, bleu):
        with pytest.raises(ValueError, match="zip"):
            metric(["a"], ["a", "b"])


def test_naive_bayes_by_hand() -> None:
    model = NaiveBayes(["good film", "bad film", "good"], [1, 0, 1], 2)
    assert [model.predict(text) for text in ("good", "bad", "Bad FILM!", "unseen")] == [1, 0, 0, 1]
    assert NaiveBayes(["good old long film", "good"], [0, 1], 2).predict("good") == 1
