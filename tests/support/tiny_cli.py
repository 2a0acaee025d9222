"""Call console commands in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest


def call(entry: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Call the console command `entry` with `arguments`; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["unipeft", *arguments])
    with pytest.raises(SystemExit) as end:
        entry()
    code = end.value.code
    return int(code or 0)
