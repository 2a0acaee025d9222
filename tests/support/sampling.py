"""Leave a sample of many like cases to the fast tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def sampled(cases: Iterable[tuple[Any, ...]], every: int) -> list[Any]:
    """Return parameters of a test: every n-th case, from the first, is fast; the rest are slow."""
    slow = pytest.mark.slow
    return [pytest.param(*case, marks=slow if i % every else ()) for i, case in enumerate(cases)]
