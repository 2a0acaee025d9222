"""Write rows as CSV that any reader takes: fields with a line break of any kind are quoted."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

BREAK = "\r\n"  # the writer quotes fields that hold a character of its line terminator


def format_rows(rows: Iterable[Sequence[Any]]) -> str:
    """Return `rows` as lines that end in a newline alone."""
    return "".join(map(_format_row, rows))


def _format_row(row: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator=BREAK).writerow(row)
    return text.getvalue().removesuffix(BREAK) + "\n"
