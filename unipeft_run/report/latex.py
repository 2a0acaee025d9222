r"""Render tables as LaTeX with booktabs, ready for \input. Every value is printed literally."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from unipeft_run.report.tables import Table
from unipeft_run.report.values import format_row, is_numeric
from unipeft_run.runs.printable import printable

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{char: rf"\{char}" for char in "&%$#_{}"},
}
PREAMBLE = r"% \usepackage[T1]{fontenc} \usepackage{booktabs}"


def render_latex(tables: Sequence[Table]) -> str:
    """Render each table as a `table` environment, with its notes below it."""
    return "\n\n".join([PREAMBLE, *("\n".join(_lines(table)) for table in tables)])


def _lines(table: Table) -> Iterator[str]:
    yield r"\begin{table}"
    yield r"\centering"
    yield rf"\caption{{{escape(printable(table.title))}}}"
    yield rf"\label{{tab:{_make_label(table)}}}"
    if table.columns:
        columns = "".join("r" if is_numeric(table, name) else "l" for name in table.columns)
        yield rf"\begin{{tabular}}{{{columns}}}"
        yield r"\toprule"
        yield _join([escape(printable(name)) for name in table.columns])
        yield r"\midrule"
        for row in table.rows:
            yield _join([escape(cell) for cell in format_row(table, row)])
        yield r"\bottomrule"
        yield r"\end{tabular}"
    for note in table.notes:
        yield rf"\par\footnotesize {escape(printable(note))}"
    yield r"\end{table}"


def _make_label(table: Table) -> str:
    """Make a label of the facts of a table, such as sst2-mini-roberta_mini."""
    words = [value for value in table.facts.values() if value] or [table.title]
    return re.sub(r"[^a-z0-9_]+", "-", "-".join(words).lower()).strip("-")


def escape(text: str) -> str:
    """Escape LaTeX's special characters; a standard deviation gets its sign."""
    escaped = "".join(SPECIAL.get(char, char) for char in text)
    return escaped.replace("+- ", r"$\pm$ ")


def _join(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
