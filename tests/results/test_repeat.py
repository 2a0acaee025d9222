"""A stored run, repeated from scratch, has the same bits on the same kind of machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "results"


@pytest.mark.slow
def test_a_cell_is_repeated_with_the_same_bits() -> None:
    """Two minutes; `python scripts/results repeat` does it for every table."""
    command = [sys.executable, str(SCRIPT), "repeat", "--tables", "table5_xsum"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("table5_xsum: task=xsum")
    expected = ("bitwise identical", "another machine", "the data has changed")
    assert any(words in done.stdout for words in expected)
