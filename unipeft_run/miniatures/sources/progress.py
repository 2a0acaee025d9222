"""Progress is said on stderr, so that stdout stays data."""

from __future__ import annotations

from rich.console import Console


def console() -> Console:
    return Console(stderr=True)
