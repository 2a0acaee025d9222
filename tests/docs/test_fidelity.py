"""The commands and counts in docs/fidelity.md: each names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unipeft_run.config.messages import own_options

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"`pytest -q (tests/[^`]+)`")
CELLS_OF_A_METHOD = 2 * 8 + 4  # two text-to-text families with and without a cache, and RoBERTa


def unmatched(command: str) -> list[str]:
    """Return the words after -k that are in the name of no test of the command's files."""
    files, _, expression = command.partition(" -k ")
    texts = [(ROOT / file).read_text(encoding="utf-8") for file in files.split()]
    names = " ".join(name for text in texts for name in re.findall(r"def (test_\w+)", text))
    words = expression.strip('"').split(" or ") if expression else []
    return [word for word in words if word not in names]


@pytest.mark.parametrize("command", COMMAND.findall(PAGE))
def test_a_command_selects_tests(command: str) -> None:
    assert not unmatched(command)


def test_a_word_without_a_test_is_found() -> None:
    assert unmatched('tests/docs/test_fidelity.py -k "selects or gone"') == ["gone"]


def test_the_number_of_cells_is_that_of_the_methods() -> None:
    methods = [name for name in own_options("method") if name != "none"]
    assert f": {CELLS_OF_A_METHOD * len(methods)} cells agree" in PAGE
