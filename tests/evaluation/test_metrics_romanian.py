"""Romanian tokenisation equals that of the original Perl and Python scripts.

All expected tokens come from the scripts themselves (mosesdecoder 3445289, Perl 5.36):

* golden/romanian_postprocess.jsonl: lines with every kind of quote, dash, cedilla, full-width sign,
  space and URL, and random lines of the same characters;
* golden/romanian_tokens.jsonl: short synthetic lines, many with U+2018 and U+201A.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from unipeft_run.evaluation.metrics import bleu
from unipeft_run.evaluation.metrics.moses import (
    normalize_punctuation,
    remove_non_printing_char,
    replace_unicode_punctuation,
    tokenize,
)
from unipeft_run.evaluation.metrics.romanian import nonbreaking_prefixes, tokenize_romanian

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("romanian_postprocess.jsonl", "romanian_tokens.jsonl")
CASES = {
    name: [json.loads(line) for line in (GOLDEN / name).read_text().splitlines()] for name in NAMES
}
LINES = CASES["romanian_postprocess.jsonl"]


@pytest.mark.parametrize("name", NAMES)
def test_tokens_equal_those_of_the_scripts(name: str) -> None:
    assert len(CASES[name]) >= 200
    differing = [
        (line["text"], line["tokens"], tokens)
        for line in CASES[name]
        if (tokens := tokenize_romanian(line["text"]).split()) != line["tokens"]
    ]
    assert differing == []


def test_golden_lines_cover_every_kind_of_character() -> None:
    text = "".join(line["text"] for line in LINES)
    for kind in (
        "\u201e\u201d\u201c\u00ab\u00bb\u2018\u2019\u201a\u2039\u203a`'\"",  # quotes
        "-\u2013\u2014\u2015",  # dashes
        "\u015e\u015f\u0162\u0163\u0218\u0219\u021a\u021b",  # cedilla and comma below
        "\uff11\uff0c\uff01\uff1f\uff08\uff09\uff05\u3002",  # full-width signs
        "\u00a0\u2009\u200b\u00ad\ufeff\t",  # spaces and invisible characters
    ):
        assert set(kind) <= set(text)
    assert "https://" in text


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("de interese, de p\u0103reri etc.", "de interese , de pareri etc ."),
        ("etc. Apoi dl. Pop", "etc. Apoi dl. Pop"),
        ("U.E. Apoi", "U.E. Apoi"),
        ("gata. apoi", "gata. apoi"),
        ("gata. Apoi", "gata . Apoi"),
        ("1,000 a,b 5,", "1,000 a , b 5 ,"),
        ("a... b", "a ... b"),
        ("n'a &lt; [x] |", "n ' a & lt ; [ x ] |"),
    ],
)
def test_full_stops_commas_and_apostrophes(text: str, tokens: str) -> None:
    assert tokenize_romanian(text) == tokens


def test_each_script_on_its_own() -> None:
    assert replace_unicode_punctuation("\uff11\u3002  a\u2019\u2026") == "1. a'..."
    assert normalize_punctuation('a ( b ) , "c," "d."') == 'a (b), "c", "d".'
    assert normalize_punctuation("3\u00a0000, 20\u00a0%") == "3.000, 20%"
    assert normalize_punctuation("''a`` \u00ab\u00a0b\u00a0\u00bb") == ' " a " "b"'
    assert normalize_punctuation("\u2018a\u201a b\u2019 c\u2019d") == "'a' b\" c'd"
    assert remove_non_printing_char("a\u200b\tb\0") == "a  b "
    assert remove_non_printing_char("\u0378") == " "  # unassigned
    assert tokenize("Vine etc. azi.", {"etc"}) == ["Vine", "etc.", "azi", "."]


def test_long_lines_take_seconds() -> None:
    start = time.monotonic()
    assert tokenize_romanian("." * 100_000) == "." * 100_000
    assert tokenize_romanian('."' * 20_000).count('"') == 20_000
    assert time.monotonic() - start < 10


def test_line_breaks_become_spaces() -> None:
    assert tokenize_romanian("a.\nB") == "a . B"
    assert tokenize_romanian("") == ""


def test_romanian_abbreviations_are_never_numeric_only() -> None:
    assert {"etc", "dl", "M.Ap.N", "A"} <= nonbreaking_prefixes()
    assert not any("#" in prefix for prefix in nonbreaking_prefixes())


def test_bleu_paper_is_bleu_of_the_tokens() -> None:
    from sacrebleu.metrics.bleu import BLEU

    texts = [line["text"] for line in LINES[:40]]
    others = [text.replace("a", "e", 1) for text in texts]
    tokens = [[tokenize_romanian(text) for text in side] for side in (others, texts)]
    score = BLEU(tokenize="none", smooth_method="none").corpus_score(tokens[0], [tokens[1]])
    metrics = bleu(others, texts).metrics
    assert 50 < metrics["bleu_paper"] < 100
    assert metrics["bleu_paper"] == pytest.approx(score.score)
