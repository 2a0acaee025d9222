"""The method table of the README is generated from conf/method/."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest

from unipeft_run.config.messages import options

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import method_table

TABLE = cache(method_table.render_table)


@pytest.fixture(autouse=True)
def _composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_table, "render_table", TABLE)
    monkeypatch.setattr(sys, "argv", ["method_table.py", "--check"])


def test_the_readme_is_up_to_date() -> None:
    assert method_table.main() == 0


def test_a_change_in_the_readme_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = method_table.README.read_text(encoding="utf-8")
    monkeypatch.setattr(method_table, "README", tmp_path / "README.md")
    method_table.README.write_text(text.replace("| gated |", "| add |", 1), encoding="utf-8")
    assert method_table.main() == 1
    assert "out of date" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["method_table.py"])
    assert method_table.main() == 0
    assert method_table.README.read_text(encoding="utf-8") == text


def test_every_method_has_its_row_and_its_equation() -> None:
    rows = TABLE().splitlines()
    assert all(row.count("|") == len(method_table.HEAD) + 1 for row in rows)
    for method in options("method"):
        (row,) = [row for row in rows if row.startswith(f"| `{method}` |")]
        assert "`h <- " in row
        assert "Table" in row or "No row" in row
    assert (
        "| ffn | bottleneck_zero | parallel | ffn | scaled | 512, s=4 | `h <- h + s relu" in TABLE()
    )
