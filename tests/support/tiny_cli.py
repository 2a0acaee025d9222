"""Calling the commands in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest


def call(entry: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of the console command `entry` with `words` on its command line."""
    monkeypatch.setattr(sys, "argv", ["unipeft", *words])
    with pytest.raises(SystemExit) as end:
        entry()
    code = end.value.code
    return int(code or 0)
