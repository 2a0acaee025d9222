"""Compose and resolve configurations, cached for all tests."""

from __future__ import annotations

from functools import cache
from typing import Any

from unipeft_run.config import RunConfig, compose, resolve

MAM = ("task=xsum", "method=mam")

compose_once = cache(lambda *overrides: compose(overrides))


@cache
def configured(*overrides: str) -> RunConfig:
    """Return the typed configuration of a command line."""
    return resolve(compose(overrides))


@cache
def resolved(*overrides: str) -> dict[str, Any]:
    """Return the configuration of a command line as plain data."""
    return configured(*overrides).plain()
