"""ROUGE: scores counted by hand, both tokenizers, and sentence splitting."""

from __future__ import annotations

import time

import pytest

from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics import rouge, split_sentences
from unipeft_run.evaluation.metrics.summaries import ROUGES
from unipeft_run.evaluation.metrics.unicode_words import UnicodeTokenizer

CYRILLIC = "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440"  # two words
OTHER_SCRIPTS = {
    "Cyrillic": (CYRILLIC, 2),
    "Greek": ("\u039a\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1 \u03ba\u03cc\u03c3\u03bc\u03b5", 2),
    "Arabic": ("\u0645\u0631\u062d\u0628\u0627 \u0628\u0643", 2),
    "Devanagari": ("\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", 2),
    "Chinese": ("\u4f60\u597d\u3002", 2),
    "Japanese and Latin": ("abc\u65e5\u672c\u3067\u30592024\u5e74", 7),
    "Thai": ("\u0e44\u0e17\u0e22", 3),
    "Korean": ("\uc548\ub155 \uc138\uacc4", 2),
}


def test_rouge_by_hand() -> None:
    scores = rouge(["the cat sat"], ["the cat lay down"]).metrics
    assert scores["rouge1"] == pytest.approx(100 * 2 * 2 / (3 + 4))
    assert scores["rouge2"] == pytest.approx(100 * 2 * 1 / (2 + 3))
    assert scores["rougeL"] == pytest.approx(100 * 2 * 2 / (3 + 4))


def test_rouge_stems_and_averages() -> None:
    scores = rouge(["two cats", "no"], ["two cat", "yes"])
    assert scores.metrics["rouge1"] == pytest.approx(50.0)
    assert scores.per_example == [pytest.approx(100.0), 0.0]


def test_rouge_lsum_ignores_sentence_order() -> None:
    metrics = rouge(["Rain came. Roads shut down."], ["Roads shut down. Rain came."]).metrics
    assert metrics["rougeLsum"] == pytest.approx(100.0)
    assert metrics["rougeL"] == pytest.approx(60.0)


@pytest.mark.parametrize("script", OTHER_SCRIPTS)
def test_unicode_tokenizer_scores_other_scripts(script: str) -> None:
    text, words = OTHER_SCRIPTS[script]
    assert len(UnicodeTokenizer().tokenize(text)) == words
    scores = rouge([text], [text], "unicode")
    assert scores.metrics == {name: pytest.approx(100.0) for name in ROUGES}


def test_signature_names_the_tokenizer() -> None:
    default, unicode = rouge([CYRILLIC], [CYRILLIC]), rouge([CYRILLIC], [CYRILLIC], "unicode")
    assert default.metrics == dict.fromkeys(ROUGES, 0.0)
    for name in (*ROUGES, "per_example"):
        assert (
            "tokenizer default (only a-z and 0-9; text in other scripts scores 0)"
            in (default.signatures[name])
        )
        assert "tokenizer unicode" in unicode.signatures[name]


def test_unicode_rouge_by_hand() -> None:
    metrics = rouge(["\u0434\u0430 \u043d\u0435\u0442"], ["\u0434\u0430"], "unicode").metrics
    assert metrics["rouge1"] == pytest.approx(100 * 2 * 1 / (2 + 1))


def test_both_tokenizers_agree_on_ascii_text() -> None:
    sides = ["Don't run_fast: 3.5 running\tcats!"], ["He doesn't run fast, 3.5 cats ran."]
    assert rouge(*sides).metrics == rouge(*sides, "unicode").metrics


def test_unicode_words_ignore_spelling_variants() -> None:
    composed, decomposed, joined = "caf\u00e9", "CAFE\u0301", "ca\u00adf\u200d\u00e9"
    tokenize = UnicodeTokenizer().tokenize
    assert tokenize(composed) == tokenize(decomposed) == tokenize(joined) == [composed]


def test_unknown_tokenizer() -> None:
    with pytest.raises(ValueError, match="tokenizer='unicod'"):
        rouge(["a"], ["a"], "unicod")


@pytest.mark.parametrize("text", ["", " ", "\n", "\u2028", "\r\n", "\0", "...", "\U0001f600"])
@pytest.mark.parametrize("tokenizer", [None, "unicode"])
def test_texts_without_words_score_0(text: str, tokenizer: str | None) -> None:
    for pair in ((text, text), (text, "a b"), ("a b", text)):
        scores = rouge([pair[0]], [pair[1]], tokenizer)
        assert scores.metrics == dict.fromkeys(ROUGES, 0.0)


def test_line_separators_separate_words() -> None:
    for separator in ("\n", "\r\n", "\u2028", "\u2029", "\0"):
        assert rouge([f"a{separator}cat"], ["a cat"]).metrics["rouge2"] == pytest.approx(100.0)


def test_long_texts() -> None:
    long = "a b " * 3000
    with pytest.raises(UserError, match=r"Example 2 is too long for ROUGE-L: 6,000 words in the"):
        rouge(["a", long], ["a", long])
    start = time.monotonic()
    assert rouge([long * 3], ["a b"]).metrics["rouge1"] < 1  # long beside short is fine
    assert rouge(["." * 10**6], ["." * 10**6]).metrics["rouge1"] == 0.0
    split_sentences("J. " * 10**4)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One fell. Two stood.", ["One fell.", "Two stood."]),
        ('He said "no." Then he left!  Why?', ['He said "no."', "Then he left!", "Why?"]),
        ("Mr. Smith met J. Doe at No. 10.", ["Mr. Smith met J. Doe at No. 10."]),
        ("Ask (Dr. Who). He knows.", ["Ask (Dr. Who).", "He knows."]),
        ("Version 2.5 is out. 3 people saw it.", ["Version 2.5 is out.", "3 people saw it."]),
        ("no capital. here", ["no capital. here"]),
        ("", [""]),
    ],
)
def test_split_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences
