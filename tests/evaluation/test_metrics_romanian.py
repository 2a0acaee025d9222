"""The paper's Romanian tokens, as the Perl and Python scripts themselves gave them.

golden/romanian_postprocess.jsonl holds lines with every kind of quote, dash, cedilla, full-width
sign, space and URL, and random ones of the same characters, each with the tokens that
romanian_postprocess.sh made of it (mosesdecoder of 2021, Perl 5.36).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unipeft_run.evaluation.metrics import bleu
from unipeft_run.evaluation.metrics.moses import (
    normalize_punctuation,
    remove_non_printing_char,
    replace_unicode_punctuation,
    tokenize,
)
from unipeft_run.evaluation.metrics.romanian import moses_romanian, nonbreaking_prefixes

FILE = Path(__file__).parents[1] / "golden" / "romanian_postprocess.jsonl"
LINES = [json.loads(line) for line in FILE.read_text().splitlines()]


def test_the_tokens_are_those_of_the_scripts() -> None:
    differ = [
        (line["text"], line["tokens"], ours)
        for line in LINES
        if (ours := moses_romanian(line["text"]).split()) != line["tokens"]
    ]
    assert differ == []


def test_the_lines_hold_what_they_should() -> None:
    text = "".join(line["text"] for line in LINES)
    assert len(LINES) > 150
    for kind in (
        "\u201e\u201d\u201c\u00ab\u00bb\u2018\u2019\u201a\u2039\u203a`'\"",  # quotes
        "-\u2013\u2014\u2015",  # dashes
        "\u015e\u015f\u0162\u0163\u0218\u0219\u021a\u021b",  # cedilla and comma below
        "\uff11\uff0c\uff01\uff1f\uff08\uff09\uff05\u3002",  # full-width signs
        "\u00a0\u2009\u200b\u00ad\ufeff\t",  # spaces and what cannot be seen
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
    assert moses_romanian(text) == tokens


def test_each_script_alone() -> None:
    assert replace_unicode_punctuation("\uff11\u3002  a\u2019\u2026") == "1. a'..."
    assert normalize_punctuation('a ( b ) , "c," "d."') == 'a (b), "c", "d".'
    assert normalize_punctuation("3\u00a0000, 20\u00a0%") == "3.000, 20%"
    assert normalize_punctuation("''a`` \u00ab\u00a0b\u00a0\u00bb") == ' " a " "b"'
    assert remove_non_printing_char("a\u200b\tb") == "a  b"
    assert tokenize("Vine etc. azi.", {"etc"}) == ["Vine", "etc.", "azi", "."]


def test_a_line_break_is_a_space() -> None:
    assert moses_romanian("a.\nB") == "a . B"
    assert moses_romanian("") == ""


def test_no_romanian_abbreviation_is_numeric() -> None:
    assert {"etc", "dl", "M.Ap.N", "A"} <= nonbreaking_prefixes()
    assert not any("#" in prefix for prefix in nonbreaking_prefixes())


def test_the_papers_bleu_is_that_of_the_tokens() -> None:
    from sacrebleu.metrics.bleu import BLEU

    texts = [line["text"] for line in LINES[:40]]
    others = [text.replace("a", "e", 1) for text in texts]
    tokens = [[moses_romanian(text) for text in side] for side in (others, texts)]
    score = BLEU(tokenize="none", smooth_method="none").corpus_score(tokens[0], [tokens[1]])
    metrics = bleu(others, texts).metrics
    assert 50 < metrics["bleu_paper"] < 100
    assert metrics["bleu_paper"] == pytest.approx(score.score)
