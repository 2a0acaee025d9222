"""docs/methods.md and the method table of the README are generated from conf/."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import pytest

from unipeft_run.config.messages import own_options

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import method_table

TABLE, PAGE = cache(method_table.render_table), cache(method_table.render_page)


@pytest.fixture(autouse=True)
def _composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_table, "render_table", TABLE)
    monkeypatch.setattr(method_table, "render_page", PAGE)
    monkeypatch.setattr(sys, "argv", ["method_table.py", "--check"])


def section(method: str) -> str:
    (found,) = re.findall(rf"^## {method}\n(.*?)(?=^## |\Z)", PAGE(), re.M | re.S)
    return str(found)


def test_readme_and_page_are_up_to_date() -> None:
    assert method_table.main() == 0


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("README", "| 21.90 |", "| 29.10 |"),
        ("PAGE", "| gated |", "| add |"),
        ("PAGE", "", ""),  # no file
    ],
)
def test_an_outdated_file_is_named_and_rewritten(
    file: str,
    old: str,
    new: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("README", "PAGE"):
        text = getattr(method_table, name).read_text(encoding="utf-8")
        monkeypatch.setattr(method_table, name, tmp_path / name)
        if name != file:
            (tmp_path / name).write_text(text, encoding="utf-8")
        elif old:
            assert old in text
            (tmp_path / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    assert method_table.main() == 1
    assert capsys.readouterr().out.startswith(f"{file} is out of date: run ")
    monkeypatch.setattr(sys, "argv", ["method_table.py"])
    assert method_table.main() == 0
    assert (tmp_path / "PAGE").read_text(encoding="utf-8") == PAGE()
    assert TABLE() in (tmp_path / "README").read_text(encoding="utf-8")


def test_the_readme_has_one_short_line_per_method() -> None:
    lines = TABLE().splitlines()
    assert len(lines) == len(own_options("method")) + 2 <= 30
    assert max(map(len, lines)) <= 110
    for method in own_options("method"):
        assert sum(line.startswith(f"| `{method}` |") for line in lines) == 1


@pytest.mark.parametrize(
    ("method", "score"),
    [("full", "21.94"), ("lora_ffn", "21.29"), ("parallel_ffn", "20.66"), ("houlsby", "")],
)
def test_the_readme_s_score_is_that_of_the_method_s_own_size(method: str, score: str) -> None:
    (line,) = [line for line in TABLE().splitlines() if line.startswith(f"| `{method}` |")]
    assert line.split("|")[-2].strip() == score


def test_every_method_has_a_section_with_its_equation_and_its_command() -> None:
    for method in own_options("method"):
        assert "\n    h <- " in section(method)
        assert re.search(rf"\nunipeft train task=\w+ method={method}\n", section(method))
        assert "| table | row | share |" in section(method) or "no row" in section(method)


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("mam", "| ffn | bottleneck_zero | parallel | ffn | scaled | 512, s=4 | 24 | 25,202,688 "),
        ("mam", "| total |  |  |  |  |  |  | 86,810,976 | 27,414,528 (6.75 %) |"),
        ("mam", "| Table 6 | MAM Adapter, l=30, r=512 | 6.7 % | 45.06 / 21.90 / 36.87 | 37.5 | "),
        ("bitfit", "| `unfreeze=[*bias]` | 254 | 333,824 | 333,824 |"),
        ("houlsby", "| Table 2 | Adapter | 0.5 % | 87.2 | 94.2 | the paper prints no size; "),
    ],
)
def test_a_section_has_axes_counts_and_the_rows_of_the_paper(method: str, line: str) -> None:
    assert line in section(method)
