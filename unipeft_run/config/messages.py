"""Messages about unknown keys and values, and the groups and choices of the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from unipeft_run.errors import UserError
from unipeft_run.extensions import find_option as find_option
from unipeft_run.extensions import groups as groups
from unipeft_run.extensions import options as options


class Illegal(UserError):
    """A combination outside the design space. A sweep skips such a cell and prints the reason."""


class SeveralRuns(UserError):
    """Overrides that name several runs where one is expected; a grid would run each of them."""


def own_options(group: str) -> list[str]:
    """List the choices of a group without those in its folders, such as peft/dora."""
    return [name for name in options(group) if "/" not in name]


def list_options(group: str) -> list[str]:
    """List the choices of a group for a message; a folder of them is one entry, as in peft/..."""
    folders = {name.partition("/")[0] for name in options(group) if "/" in name}
    return [*own_options(group), *(f"{folder}/..." for folder in sorted(folders))]


def dotted_keys(node: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted key of every section and value below `node`, parents first."""
    if path:
        yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from dotted_keys(value, f"{path}.{key}" if path else str(key))


def shorten(value: Any, length: int = 60) -> str:
    """Format `value` on one line of at most `length` characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= length else text[: length - 3] + "..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the key that `name` probably means; the sections of a dotted key may be left out."""
    names = list(dict.fromkeys(known))
    if longer := [other for other in names if other.endswith(f".{name}")]:
        return " or ".join(longer[:3])
    tails = {other.rpartition(".")[2]: other for other in reversed(names)}
    close = get_close_matches(name, names, n=1) or get_close_matches(name, tails, n=1, cutoff=0.75)
    return tails.get(close[0], close[0]) if close else None


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Say that `key` is unknown and name the nearest one, preferably in the same section."""
    names = list(known)
    parent = key.rpartition(".")[0]
    siblings = [name for name in names if parent and name.rpartition(".")[0] == parent]
    if near := nearest(key, siblings) or nearest(key, names):
        return f"there is no key {shorten(key)}; did you mean {near}?"
    tails = ", ".join(name.rpartition(".")[2] for name in siblings)
    return f"there is no key {shorten(key)}; " + (
        f"{parent} has {tails}" if tails else "see --help"
    )


def unknown_option(group: str, value: Any, key: str = "") -> str:
    """Say that a group has no choice `value`; list its choices and name the nearest."""
    folder = str(value).rpartition("/")[0]
    inside = [name for name in options(group) if folder and name.startswith(f"{folder}/")]
    listed = inside or list_options(group)
    return unknown_choice(key or group, value, listed, options(group))


def unknown_choice(
    key: str, value: Any, allowed: Iterable[str], known: Iterable[str] | None = None
) -> str:
    """Say that `key` cannot be `value`; list the allowed values and name the nearest.

    `key`: empty for a word without a key. `known`: where the nearest is looked for, if the list is
    shortened.
    """
    names = list(allowed)
    by_case = {name.casefold(): name for name in (names if known is None else known)}
    word = str(value).casefold()
    longer = [name for name in by_case if word and name.startswith(f"{word}_")]
    near = [word] if word in by_case else longer or get_close_matches(word, by_case, n=1)
    hint = f" (did you mean {' or '.join(by_case[name] for name in near[:3])}?)" if near else ""
    choice = ", ".join(names) or "nothing"
    word = f"{key}={shorten(value)}" if key else shorten(value)
    return f"{word} is unknown{hint}; choose from {choice}"
