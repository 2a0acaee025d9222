"""The console for progress and notices: stderr, so that stdout holds results only."""

from __future__ import annotations

from functools import cache

from rich.console import Console


@cache
def console() -> Console:
    return Console(stderr=True)


def notify(line: str) -> None:
    """Print one plain line on stderr."""
    console().print(line, markup=False, highlight=False, soft_wrap=True)
