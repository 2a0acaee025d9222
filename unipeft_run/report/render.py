"""Render tables as text, Markdown and CSV. Every value is printed literally, on one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from unipeft_run.report.cells import Interval, Spread
from unipeft_run.report.latex import render_latex
from unipeft_run.report.tables import Table
from unipeft_run.report.values import format_row, is_numeric
from unipeft_run.runs.columns import GAP, align, measure
from unipeft_run.runs.csv_rows import format_rows
from unipeft_run.runs.printable import printable

WIDEST = 1 << 30  # characters of a line without a terminal
MARKDOWN = re.compile(r"([\\`*<|])")  # would start code, emphasis, HTML or a cell


def render_text(tables: Sequence[Table], width: int | None = None) -> str:
    """Render tables for a terminal; a table wider than `width` becomes several blocks of columns.

    `width` defaults to the terminal's; without a terminal, every table is one block.
    """
    width = width or _terminal_width()
    return "\n\n".join("\n".join(_text_lines(table, width)) for table in tables)


def _terminal_width() -> int:
    from rich.console import Console

    console = Console()
    return console.width if console.is_terminal else WIDEST


def _text_lines(table: Table, width: int) -> Iterator[str]:
    yield printable(table.title)
    cells = [format_row(table, row) for row in table.rows]
    for number, block in enumerate(_split_columns(table, cells, width)):
        rows = cells
        if number:  # rows with nothing in this block are left out
            yield ""
            rows = [row for row in cells if any(row[column] for column in block[1:])]
        yield from _align(table, rows, block)
    for note in table.notes:
        yield f"  note: {printable(note)}"


def _split_columns(table: Table, cells: Sequence[Sequence[str]], width: int) -> Iterator[list[int]]:
    """Yield the columns of each block; all start with the first one, which names the row."""
    widths = list(measure(table.columns, cells))
    block: list[int] = []
    for number in range(len(widths)):
        used = sum(widths[other] + GAP for other in block)
        if len(block) > 1 and used + widths[number] > width:
            yield block
            block = [0]
        block.append(number)
    yield block


def _align(table: Table, cells: Sequence[Sequence[str]], block: Sequence[int]) -> list[str]:
    names = [table.columns[number] for number in block]
    left = [place for place, name in enumerate(names) if not is_numeric(table, name)]
    return align(names, [[row[number] for number in block] for row in cells], left)


def render_markdown(tables: Sequence[Table]) -> str:
    """Render each table under a heading, with numbers aligned right."""
    return "\n\n".join("\n".join(_markdown_lines(table)) for table in tables)


def _markdown_lines(table: Table) -> Iterator[str]:
    yield f"## {_escape(printable(table.title))}"
    yield ""
    yield _join([_escape(printable(name)) for name in table.columns])
    yield _join(["--:" if is_numeric(table, name) else "---" for name in table.columns])
    for row in table.rows:
        yield _join([_escape(cell) for cell in format_row(table, row)])
    if table.notes:
        yield ""
    for note in table.notes:
        yield f"* {_escape(printable(note))}"


def _escape(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", text)


def _join(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def render_csv(tables: Sequence[Table]) -> str:
    """Render all tables as one sheet in full precision, each spread or interval in two columns."""
    records = [record for table in tables for record in _records(table)]
    names = list(dict.fromkeys(name for record in records for name in record))
    rows = [[record.get(name, "") for name in names] for record in records]
    return format_rows([names, *rows]).rstrip("\n")


def _records(table: Table) -> Iterator[dict[str, object]]:
    for row in table.rows:
        record: dict[str, object] = dict(table.facts)
        for name, value in row.items():
            if isinstance(value, Spread):
                record[name] = value.mean
                record[f"{name} std"] = value.std
            elif isinstance(value, Interval):
                record |= {f"{name} low": value.low, f"{name} high": value.high}
            else:
                record[name] = value
        record["notes"] = "; ".join(table.notes)
        yield {printable(name): _literal(value) for name, value in record.items()}


def _literal(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "text": render_text,
    "markdown": render_markdown,
    "latex": render_latex,
    "csv": render_csv,
}
