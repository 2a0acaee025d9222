"""Suggest an override for an option that does not exist: --seed 3 is written seed=3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unipeft_run.commands.key_help import key_choices
from unipeft_run.config.hydra_errors import FOREIGN_KEYS
from unipeft_run.config.messages import groups
from unipeft_run.runs.printable import printable

Keys = Mapping[str, Sequence[str]]  # key of the configuration -> its values, if they are few


def overridable_keys() -> Keys:
    """Return the groups and keys that overrides of a run set."""
    return {**dict.fromkeys(groups(), ()), **key_choices()}


def find_override(flag: str, words: Sequence[str], keys: Keys | None = None) -> str | None:
    """Return key=value for `flag`, which is --key or --key=value; None if it names no key.

    `words`: the command line, where the value may follow. `keys`: by default those of a run.
    """
    keys = overridable_keys() if keys is None else keys
    name, equals, value = flag.partition("=")
    key = _find_key(name.lstrip("-").replace("-", "_"), keys)
    if key is None:
        return None
    return f"{key}={printable(value if equals else _next_value(name, words, keys[key]))}"


def _find_key(name: str, keys: Keys) -> str | None:
    """Find the key that a flag names, with or without its section, or as other tools do."""
    if name in keys:
        return name
    below = [key for key in keys if key.endswith(f".{name}")]
    key = below[0] if len(below) == 1 else FOREIGN_KEYS.get(name)
    return key if key in keys else None


def _next_value(flag: str, words: Sequence[str], choices: Sequence[str]) -> str:
    """Return the value that follows `flag`, or else what may be given."""
    following = words[words.index(flag) + 1 :][:1] if flag in words else []
    if following and not following[0].startswith("-") and "=" not in following[0]:
        return following[0]
    return "true" if "true" in choices else "..."
