"""The console for progress and notices: stderr, so that stdout holds results only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from rich.console import Console


@cache
def console() -> Console:
    return Console(stderr=True)


@contextmanager
def announced(task: str) -> Iterator[None]:
    """Show `task` while the context runs: a spinner on a terminal, one plain line elsewhere."""
    if not console().is_terminal:
        notify(task)
        yield
        return
    with console().status(task):
        yield


def notify(line: str) -> None:
    """Print one plain line on stderr."""
    console().print(line, markup=False, highlight=False, soft_wrap=True)
