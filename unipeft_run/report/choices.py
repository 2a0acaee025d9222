"""Name the choices of the axes in stored slots, as their overrides do: composition@ffn=add."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from unipeft_run.config.design_space import load_axis_file
from unipeft_run.config.messages import options
from unipeft_run.errors import UserError
from unipeft_run.extensions import config_dirs

IDENTIFYING = {"form": "_target_", "composition": "_target_", "representation": "sites"}


def find_choice(axis: str, part: Any) -> str | None:
    """Return the choice of `axis` that a slot's stored part was made by; None if there is none.

    Of the choices with its class or its sites, it is the one with the fewest other values.
    """
    if axis == "insertion":
        return part if part in options(axis) else None
    key = IDENTIFYING[axis]
    if not isinstance(part, Mapping) or part.get(key) is None:
        return None
    known = _read_choices(axis, config_dirs())
    fitting = [name for name, own in known.items() if _same(own[axis].get(key), part[key])]
    return min(fitting, key=lambda name: _count_others(known[name][axis], part), default=None)


def fixed_values(axis: str, name: str) -> dict[str, Any]:
    """Return the values that the file of a choice gives to a slot's keys, by dotted key.

    Sizes are missing: they depend on the slot.
    """
    known = _read_choices(axis, config_dirs()).get(name, {})
    return {key: value for key, value in _leaves(known) if not _is_open(value)}


@cache
def _read_choices(axis: str, folders: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    """Read the files of an axis. `folders`: those where files are looked up."""
    del folders
    return dict(_readable_choices(axis))


def _readable_choices(axis: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in options(axis):
        try:
            content: Any = OmegaConf.to_container(load_axis_file(axis, name))
        except UserError:  # a broken file of the user names no choice
            continue
        part = content.get(axis)
        if isinstance(part, dict):
            absent = [key for key, value in part.items() if _refers_to_null(value, content)]
            yield name, {**content, axis: {**part, **dict.fromkeys(absent)}}


def _refers_to_null(value: Any, slot: Mapping[str, Any]) -> bool:
    """Return whether a value is that of another key of the slot which the file sets to null."""
    key = str(value).removeprefix("${..").removesuffix("}")
    return _is_open(value) and slot.get(key, "") is None


def _same(value: Any, other: Any) -> bool:
    """Return whether two values are equal; classes are compared by package and name."""
    if isinstance(value, str) and isinstance(other, str):
        ends = [(text.partition(".")[0], text.rpartition(".")[2]) for text in (value, other)]
        return ends[0] == ends[1]
    return bool(value == other)


def _count_others(own: Mapping[str, Any], part: Mapping[str, Any]) -> int:
    """Count the keys of a choice that have another value in `part`."""
    return sum(
        (part.get(key) is None) != (value is None) if _is_open(value) else part.get(key) != value
        for key, value in own.items()
        if key != "_target_"
    )


def _is_open(value: Any) -> bool:
    """Return whether a file leaves a value to the slot."""
    return isinstance(value, str) and (value.startswith("${") or value == "???")


def _leaves(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
