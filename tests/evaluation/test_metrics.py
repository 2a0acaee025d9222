"""Accuracy, BLEU and chrF on inputs with known scores, and properties of all metrics."""

from __future__ import annotations

import pytest

from unipeft_run.data.tasks.naive_bayes import NaiveBayes
from unipeft_run.evaluation.metrics import Scores, accuracy, bleu, rouge


def test_accuracy_is_a_percentage() -> None:
    scores = accuracy([1, 0, 2, 2], [1, 0, 1, 2])
    assert scores.metrics == {"accuracy": 75.0}
    assert scores.per_example == [100.0, 100.0, 0.0, 100.0]


ROMANIAN = (
    "Aceast\u0103 \u0219coal\u0103 are \u00eenv\u0103\u021b\u0103tori buni \u00een ora\u0219."
)
CEDILLA = ROMANIAN.replace("\u0219", "\u015f").replace("\u021b", "\u0163")


def test_identical_texts_score_100() -> None:
    scores = bleu([ROMANIAN, ROMANIAN], [ROMANIAN, ROMANIAN])
    assert scores.metrics == {name: pytest.approx(100.0) for name in ("bleu", "bleu_paper", "chrf")}
    assert len(scores.per_example) == 2


def test_bleu_paper_ignores_diacritics() -> None:
    metrics = bleu([CEDILLA], [ROMANIAN]).metrics
    assert metrics["bleu_paper"] == pytest.approx(100.0)
    assert metrics["bleu"] < 60


GERMAN = ["Der \u201eHund\u201c bellt heute laut.", "Sie schl\u00e4ft."]


def test_only_romanian_is_scored_with_the_romanian_protocol() -> None:
    scores = bleu(GERMAN, GERMAN, "de")
    assert scores.metrics == {"bleu": pytest.approx(100.0), "chrf": pytest.approx(100.0)}
    assert scores.signatures["bleu"].endswith("|norm:none|target:de")
    assert (
        bleu(GERMAN, GERMAN)
        .signatures["bleu_paper"]
        .endswith("|norm:moses-ro-2019-11,no-diacritics,no-escape")
    )


def test_other_languages_are_scored_as_sacrebleu_does() -> None:
    from sacrebleu import corpus_bleu

    others = [text.replace("\u00e4", "a") for text in GERMAN]
    assert bleu(others, GERMAN, "de").metrics["bleu"] == corpus_bleu(others, [GERMAN]).score


@pytest.mark.parametrize(("language", "tokens"), [("zh", "zh"), ("ja", "char"), ("my", "char")])
def test_languages_without_spaces_are_scored_by_character(language: str, tokens: str) -> None:
    text, close = "\u4eca\u5929\u5929\u6c14\u5f88\u597d", "\u4eca\u5929\u5929\u6c14\u5f88\u51b7"
    scores = bleu([close], [text], language)
    assert 50 < scores.metrics["bleu"] < 100
    assert f"|tok:{tokens}|" in scores.signatures["bleu"]


@pytest.mark.parametrize("text", ["", " ", "\u2028", "\r\n"])
def test_empty_translations_score_0(text: str) -> None:
    for pair in ((text, text), (text, ROMANIAN), (ROMANIAN, text)):
        scores = bleu([pair[0]], [pair[1]])
        assert scores.metrics == {"bleu": 0.0, "bleu_paper": 0.0, "chrf": 0.0}


def test_separators_within_a_translation_count_as_spaces() -> None:
    for separator in ("\n", "\u2028", "\0", "\t", "\r\n"):
        text = ROMANIAN.replace(" ", separator)
        assert bleu([text], [ROMANIAN]).metrics["bleu_paper"] == pytest.approx(100.0)


def signatures(scores: Scores) -> str:
    return " ".join(scores.signatures.values())


def test_every_metric_has_a_signature() -> None:
    text = ["a b c d e"]
    assert "tok:13a" in signatures(bleu(text, text))
    assert "tok:none|smooth:none" in bleu(text, text).signatures["bleu_paper"]
    assert "Porter" in signatures(rouge(text, text))
    for scores in (bleu(text, text), rouge(text, text), accuracy([1], [1])):
        assert set(scores.signatures) == {*scores.metrics, "per_example"}


def test_no_predictions_or_unequal_lengths_are_errors() -> None:
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
