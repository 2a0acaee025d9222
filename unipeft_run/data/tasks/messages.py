"""Error messages about data, shared by several readers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

MOST_NAMES = 20


def missing_column(where: str, name: str, present: Sequence[str], key: str | None = None) -> str:
    """Return the message that `where` lacks column `name`, with the nearest of those `present`.

    `key` is the configuration key that names the column.
    """
    by_case = {other.casefold(): other for other in present}
    near = get_close_matches(name.casefold(), by_case, n=1)
    hint = f" (did you mean {by_case[near[0]]!r}?)" if near else ""
    start = f"{key}={name}: " if key else ""
    return f"{start}{where} has no column {name!r}{hint}; its columns are {list_names(present)}"


def list_names(names: Sequence[str]) -> str:
    """Join at most MOST_NAMES of `names`."""
    more = ["..."] if len(names) > MOST_NAMES else []
    return ", ".join([*(printable(name) for name in names[:MOST_NAMES]), *more]) or "none"


def printable(text: str, length: int = 60) -> str:
    """Return `text` on one line, shortened, with control characters escaped."""
    escaped = text if text.isprintable() else json.dumps(text)[1:-1]
    return escaped if len(escaped) <= length else escaped[: length - 3] + "..."


def describe_value(value: Any) -> str:
    """Describe a JSON value in a few printable characters."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 64:
        return "an integer of more than 64 bits"
    return printable(json.dumps(value, default=lambda other: type(other).__name__), 40)
