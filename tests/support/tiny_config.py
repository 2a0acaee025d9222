"""Configurations, composed once for all tests that look at them."""

from __future__ import annotations

from functools import cache
from typing import Any

from unipeft_run.config import RunConfig, compose, resolve

MAM = ("task=xsum", "method=mam")

compose_once = cache(lambda *words: compose(words))


@cache
def configured(*overrides: str) -> RunConfig:
    """The typed configuration of a command line."""
    return resolve(compose(overrides))


@cache
def resolved(*overrides: str) -> dict[str, Any]:
    """The same as plain data."""
    return configured(*overrides).plain()
