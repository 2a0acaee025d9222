"""Tables as text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from unipeft_run.report.tables import Row, Spread, Table, Value

DECIMALS = {"loss": 4, "tokens/s": 0, "seconds": 0}  # else 2; what the paper prints as it does
DECIMALS |= {"accuracy printed": 1, "bleu_paper printed": 1}
WIDEST = 10_000  # characters of a line: it is the terminal that wraps, or does not


def text(tables: Sequence[Table]) -> str:
    """For a terminal: every table as wide as it is, no line wrapped."""
    return "\n\n".join(_text(table) for table in tables)


def _text(table: Table) -> str:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=None, header_style="bold", pad_edge=False)
    for name in table.columns:
        justify: Literal["right", "left"] = "right" if _is_numeric(table, name) else "left"
        grid.add_column(Text(name), justify=justify, no_wrap=True)
    for row in table.rows:
        grid.add_row(*(Text(word) for word in _words(table, row)))
    console = Console(file=io.StringIO(), color_system=None, width=WIDEST)
    with console.capture() as printed:
        console.print(grid, highlight=False)
    lines = [line.rstrip() for line in printed.get().splitlines()]
    return "\n".join([table.title, *lines, *(f"  note: {note}" for note in table.notes)])


def markdown(tables: Sequence[Table]) -> str:
    """With a heading for each table; numbers to the right."""
    return "\n\n".join("\n".join(_markdown(table)) for table in tables)


def _markdown(table: Table) -> Iterator[str]:
    yield f"## {table.title}"
    yield ""
    yield _bars(table.columns)
    yield _bars(["--:" if _is_numeric(table, name) else "---" for name in table.columns])
    for row in table.rows:
        yield _bars(_words(table, row))
    if table.notes:
        yield ""
    for note in table.notes:
        yield f"* {note}"


def comma_separated(tables: Sequence[Table]) -> str:
    """One sheet of all tables, full precision, a spread in two columns."""
    records = [record for table in tables for record in _records(table)]
    names = list(dict.fromkeys(name for record in records for name in record))
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return sheet.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "text": text,
    "markdown": markdown,
    "csv": comma_separated,
}


def _records(table: Table) -> Iterator[dict[str, object]]:
    for row in table.rows:
        record: dict[str, object] = dict(table.facts)
        for name, value in row.items():
            if isinstance(value, Spread):
                record[name] = value.mean
                record[f"{name} std"] = value.std
            else:
                record[name] = value
        yield {**record, "notes": "; ".join(table.notes)}


def _bars(words: Sequence[str]) -> str:
    return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |"


def _words(table: Table, row: Row) -> list[str]:
    return [_word(name, row.get(name)) for name in table.columns]


def _word(name: str, value: Value) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int | float) and name == "% printed":
        return f"{value:g}"
    if isinstance(value, int):
        return f"{value:,}"
    decimals = DECIMALS.get(name, 2)
    if isinstance(value, float):
        return f"{value:,.{decimals}f}"
    std = "" if value.std is None else f" +- {value.std:.{decimals}f}"
    return f"{value.mean:.{decimals}f}{std}"


def _is_numeric(table: Table, name: str) -> bool:
    return not any(isinstance(row.get(name), str) for row in table.rows)
