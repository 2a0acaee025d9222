"""The summaries that a run prints: aligned, at most 72 columns, values in full."""

from __future__ import annotations

from pathlib import Path

from tiny_config import configured

from unipeft_run.tracking.summary import format_headline, format_result

WORDS = ("task=xsum", "method=mam", "recipe.accumulation=16")
CONFIG = configured(*WORDS, "recipe.batch_size=4")
SITES = [
    {"slot": "attn", "representation": "attn.heads", "sites": 36, "trained": 1, "stored": 1},
    {"slot": "ffn", "representation": "ffn", "sites": 24, "trained": 61_000_000, "stored": 27},
    {"slot": "unfrozen", "representation": "", "sites": 1, "trained": 400_000_000, "stored": 9},
]
TABLE = {
    "sites": SITES,
    "trained": 461_000_001,
    "stored": 37,
    "stored_percent": 6.654,
    "backbone": 406_291_456,
}


def test_the_headline_fits_72_columns_and_is_aligned() -> None:
    lines = format_headline(CONFIG, TABLE, 13.333).splitlines()
    assert lines[0] == "xsum | bart_large | mam"
    assert max(map(len, lines)) <= 72
    assert len({len(line) for line in lines[1:6]}) == 1, "one width for the table"
    assert lines[4].split() == ["unfrozen", "1", "400,000,000", "9"]
    assert lines[6:] == [
        "stored: 6.65 % of 406,291,456 parameters",
        "per update: 16 x 4 examples, 13.33 % padding",
    ]


def test_batches_by_tokens_are_named() -> None:
    by_tokens = ("recipe.batch_size=null", "recipe.max_tokens=4096", "recipe.accumulation=1")
    config = configured(*WORDS, *by_tokens)
    assert "per update: 4,096 tokens of the longer side, 0.00 % padding" in format_headline(
        config, TABLE, 0
    )


def test_the_result_aligns_its_values_and_rounds_percentages_to_two_decimals() -> None:
    summary = {
        "primary": "test/accuracy",
        "test/accuracy": 86.375,
        "test/loss": 0.34494,
        "trivial/name": "naive Bayes on words and word pairs, counted",
        "trivial/accuracy": 78.904,
        "parameters/trained": 4_451_362,
        "parameters/stored": 519_938,
        "parameters/backbone": 22_713_986,
        "train/tokens_per_second": 1596.4,
    }
    lines = format_result(summary, Path("outputs/sst2/mam/35ecdf70")).splitlines()
    table = dict(line.rsplit("  ", 1) for line in lines)
    assert len({line.rfind("  ") for line in lines}) == 1
    assert max(map(len, lines)) <= 80
    assert [value.strip() for value in table.values()] == [
        "86.38",
        "78.90 (naive Bayes on words and word pairs, counted)",
        "0.3449",
        "4,451,362 (19.60 % of the backbone)",
        "519,938 (2.29 % of the backbone)",
        "1,596",
        "outputs/sst2/mam/35ecdf70",
    ]
