"""What sets one configuration apart from others, in the words of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unipeft_run.config.identity import science
from unipeft_run.config.schema import SLOTS

Config = Mapping[str, Any]
NAMED = ("seed", "backbone.weights", "backbone.name", "task.name")  # said elsewhere in a table
NUMBERS = {"bottleneck": ("form.rank", "form.length"), "scale": ("composition.scale",)}


def differences(configs: Sequence[Config], said: Sequence[str] = NAMED) -> list[str]:
    """For each configuration, `key=value` of all that is not the same in every one of them.

    `said`: the keys that stand elsewhere. A key that is not there is as one that is null.
    """
    flat = [dict(_leaves(_compared(config))) for config in configs]
    keys = list(dict.fromkeys(key for leaves in flat for key in leaves))
    values = {key: {leaves.get(key, "null") for leaves in flat} for key in keys if key not in said}
    differing = [key for key, found in values.items() if len(found) > 1]
    shown = [key for key in differing if not _follows(key, differing)]
    return [
        " ".join(f"{key.removesuffix('._target_')}={leaves[key]}" for key in shown if key in leaves)
        for leaves in flat
    ]


def _compared(config: Config) -> dict[str, Any]:
    """What the numbers come from, with the slots' numbers under their own names."""
    slots = {
        slot: {**part, **{n: config[slot][n] for n in NUMBERS if _counts(n, part)}}
        for slot in SLOTS
        if (part := science(config).get(slot)) is not None
    }
    return {**science(config), **slots}


def _counts(number: str, slot: Mapping[str, Any]) -> bool:
    """Whether the form or the composition of the slot takes this number."""
    places = (tail.split(".") for tail in NUMBERS[number])
    return any(slot[axis].get(key) is not None for axis, key in places)


def _follows(key: str, differing: Sequence[str]) -> bool:
    """Whether another differing key says it already: the slot's number, or the node's class."""
    slot, _, rest = key.partition(".")
    number = any(f"{slot}.{n}" in differing and rest in tails for n, tails in NUMBERS.items())
    node, _, leaf = key.rpartition(".")
    return number or (leaf != "_target_" and f"{node}._target_" in differing)


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and values as text; a class goes by its last name."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif path.endswith("_target_"):
        yield path, str(node).rpartition(".")[2]
    else:
        yield path, f"[{','.join(map(str, node))}]" if isinstance(node, list) else _short(node)


def _short(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)
