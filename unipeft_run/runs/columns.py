"""Align rows of text in columns, with rich. Nothing is wrapped, truncated or read as markup."""

from __future__ import annotations

import io
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
