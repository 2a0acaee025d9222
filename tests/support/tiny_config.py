"""Configurations, composed once for all tests that look at them."""

from __future__ import annotations

from functools import cache
from typing import Any

from unipeft_run.config import compose, resolve

MAM = ("task=xsum", "method=mam")

compose_once = cache(lambda *words: compose(words))


@cache
def resolved(*overrides: str) -> dict[str, Any]:
    return resolve(compose(overrides))
