"""Tables as text: they fit the terminal without breaking or cutting a value."""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len

from unipeft_run.report.cells import Spread
from unipeft_run.report.latex import render_latex
from unipeft_run.report.render import render_csv, render_markdown, render_text
from unipeft_run.report.tables import Table

ROWS = [
    {
        "method": f"scaled_parallel_ffn ffn.bottleneck={size}",
        "seeds": 3,
        "accuracy": Spread(93.25, 0.125),
        "loss": Spread(0.3903),
        "trained": 4_451_362,
        "stored": 519_938,
        "run": f"outputs/sst2/mam/35ecdf7{size}",
        "tokens/s": 383.4,
    }
    for size in range(3)
]
TABLE = Table("sst2, scale mini", {"task": "sst2"}, ROWS, ["accuracy: percent"])
VALUES = ("93.25 +- 0.12", "0.3903", "4,451,362", "519,938", "outputs/sst2/mam/35ecdf72", "383")


@pytest.mark.parametrize("width", [40, 60, 72, 80, 100])
def test_a_narrow_terminal_gets_blocks_of_whole_columns(width: int) -> None:
    text = render_text([TABLE], width)
    table, _, notes = text.partition("  note: ")
    assert notes == "accuracy: percent"
    for value in VALUES:
        assert re.search(rf"(^|\s){re.escape(value)}(\s|$)", table, re.MULTILINE), value
    blocks = table.rstrip().split("\n\n")
    assert len(blocks) > 1 and all("scaled_parallel_ffn" in block for block in blocks)
    widest = max(cell_len(line) for line in table.splitlines())
    assert widest <= max(width, len(ROWS[0]["method"]) + 2 + 25), "one wide column may not fit"


def test_rows_that_are_empty_in_a_later_block_are_left_out() -> None:
    rows = [{"method": "mam", "a" * 30: 1.0, "b" * 30: 2.0}, {"method": "trivial", "a" * 30: 3.0}]
    text = render_text([Table("x", {}, rows)], 50)
    assert (text.count("mam"), text.count("trivial"), text.count("3.00")) == (2, 1, 1)


def test_without_a_terminal_a_table_is_one_block() -> None:
    title, header, *rows, note = render_text([TABLE]).splitlines()
    assert (title, note) == ("sst2, scale mini", "  note: accuracy: percent")
    assert header.split() == list(ROWS[0])
    assert len(rows) == 3 and len({len(row) for row in rows}) == 1
    assert rows[0].split("  ")[-1].strip() == "383"


def test_columns_of_wide_characters_stay_aligned() -> None:
    rows = [{"method": "方法", "loss": 1.0}, {"method": "mam", "loss": 2.0}]
    _, *lines = render_text([Table("x", {}, rows)], 72).splitlines()
    assert len({cell_len(line) for line in lines}) == 1


@pytest.mark.parametrize("length", [100, 20_000])
def test_a_long_command_is_neither_wrapped_nor_cut(length: int) -> None:
    command = "unipeft-train " + "x" * length
    rows = [{"row": "MAM", "state": "missing", "command": command}]
    assert any(
        line.endswith(command) for line in render_text([Table("x", {}, rows)], 72).splitlines()
    )


def test_values_are_literal_in_every_format() -> None:
    text = "[/bold] \x1b[2J a|b *c* `d` <e>\nf"
    table = Table(text, {"task": text}, [{"method": text, "loss": 1e300}], [text])
    assert "\x1b" not in render_text([table]) + render_markdown([table]) + render_csv([table])
    shown = r"[/bold] \x1b[2J a|b *c* `d` <e>\nf"
    assert render_text([table]).count(shown) == 3
    assert render_csv([table]).splitlines()[1].count(shown) == 3
    assert len(render_csv([table]).splitlines()) == 2
    row = render_markdown([table]).splitlines()[4]
    assert r"a\|b \*c\* \`d\` \<e>" in row and row.endswith("| 1e+300 |")


def test_a_table_without_rows_is_its_title_and_notes() -> None:
    assert render_text([Table("nothing", {}, [], ["a note"])]) == "nothing\n\n  note: a note"


def test_latex_is_a_booktabs_table() -> None:
    row = {"method": "mam ffn.scale=4", "stored %": 2.294, "accuracy": Spread(93.25, 0.125)}
    text = render_latex([Table("a_b & c", {}, [row, {"method": r"x\y^2 {50 %} #1 $"}], ["~ note"])])
    lines = text.splitlines()
    assert r"\caption{a\_b \& c}" in lines and r"\begin{tabular}{lrr}" in lines
    assert r"method & stored \% & accuracy \\" in lines
    assert r"mam ffn.scale=4 & 2.29 & 93.25 $\pm$ 0.12 \\" in lines
    escaped = r"x\textbackslash{}y\textasciicircum{}2 \{50 \%\} \#1 \$ &  &  \\"
    assert escaped in lines
    rules = [line for line in lines if line.endswith("rule")]
    assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert r"\par\footnotesize \textasciitilde{} note" in lines
