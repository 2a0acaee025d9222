"""Align rows of text in columns. Nothing is truncated, read as markup, or broken inside a word."""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence

from unipeft_run.runs.printable import printable

GAP = 2  # spaces between columns


def align(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Return the lines of a table; columns in `left` are aligned left, the others right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, GAP // 2))
    for number, name in enumerate(header):
        justify = "left" if number in left else "right"
        grid.add_column(Text(printable(name)), justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    width = sum(measure(header, rows)) + GAP * len(header)
    console = Console(file=io.StringIO(), color_system=None, width=max(1, width))
    with console.capture() as printed:
        console.print(grid, highlight=False)
    return [line.rstrip() for line in printed.get().splitlines()]


def measure(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[int]:
    """Yield the width of each column in terminal cells."""
    from rich.cells import cell_len

    for column in zip(header, *rows, strict=True):
        yield max(cell_len(printable(cell)) for cell in column)


def fit_columns(
    rows: Sequence[Sequence[str]], width: int | None = None, *, remarks: bool = False
) -> Iterator[str]:
    """Yield the lines of a table, header first, none broken inside a word.

    In less than `width` terminal cells (by default those of the terminal; unlimited in a file), the
    first column is printed on a separate line, and the rest of the row indented below it.
    `remarks`: the last column is text of any length; it goes beside the first one there.
    """
    width = terminal_width() if width is None else width
    lines = list(_pad(rows))
    if width is None or max(map(_cells, lines)) <= width:
        yield from lines
        return
    end = -1 if remarks else None
    for row, rest in zip(rows, _pad([row[1:end] for row in rows]), strict=True):
        first = f"{row[0]}  {row[-1]}".rstrip() if remarks else row[0]
        yield from textwrap.wrap(first, width, break_long_words=False, break_on_hyphens=False)
        yield f"  {rest}"


def terminal_width() -> int | None:
    """Return the width of the terminal, or $COLUMNS; None if stdout goes elsewhere."""
    if os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return None


def _pad(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Join the columns of `rows`. A rich table of 5,000 rows would take seconds."""
    widths = [max(map(_cells, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (
            cell + " " * (width - _cells(cell)) for cell, width in zip(row, widths, strict=True)
        )
        yield (" " * GAP).join(padded).rstrip()


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
