"""Messages about unknown keys and values, and the groups of conf/ they are chosen from."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from unipeft_run.errors import UserError


class Illegal(UserError):
    """A combination outside the design space: a sweep skips such a cell, with the reason."""


def conf_dir() -> Path:
    """Find the YAML files: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent.parent
    return next(d for d in (package / "conf", package.parent / "conf") if d.is_dir())


def options(group: str) -> list[str]:
    """List the files of a group of conf/; [] if there is no such group."""
    folder = conf_dir() / group
    return sorted(str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.yaml"))


def groups() -> list[str]:
    """List the groups of conf/: the keys that choose a file."""
    return sorted(d.name for d in conf_dir().iterdir() if d.is_dir() and d.name != "preset")


def shown(value: Any, length: int = 60) -> str:
    """Show `value` on one line of at most `length` characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= length else text[: length - 3] + "..."


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Find the name that `word` was probably meant to be; a dotted name may lack its front."""
    names = list(dict.fromkeys(known))
    if longer := [name for name in names if name.endswith(f".{word}")]:
        return " or ".join(longer[:3])
    tails = {name.rpartition(".")[2]: name for name in reversed(names)}
    close = get_close_matches(word, names, n=1) or get_close_matches(word, tails, n=1, cutoff=0.75)
    return tails.get(close[0], close[0]) if close else None


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Say that `key` is unknown, and name the nearest one, first among its siblings."""
    names = list(known)
    parent = key.rpartition(".")[0]
    beside = [name for name in names if parent and name.rpartition(".")[0] == parent]
    if near := nearest(key, beside) or nearest(key, names):
        return f"there is no key {shown(key)}; did you mean {near}?"
    tails = ", ".join(name.rpartition(".")[2] for name in beside)
    return f"there is no key {shown(key)}; " + (f"{parent} has {tails}" if tails else "see --help")


def unknown_choice(key: str, word: Any, allowed: Iterable[str]) -> str:
    """Say that `word` is no value of `key`, with the allowed ones and the nearest of them."""
    names = list(allowed)
    near = get_close_matches(str(word), names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    choice = ", ".join(names) or "nothing"
    return f"{key}={shown(word)} is unknown{hint}; choose from {choice}"
