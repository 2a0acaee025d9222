"""Find the overrides that distinguish configurations, to label rows and curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unipeft_run.config.identity import scientific_config
from unipeft_run.config.schema import SLOTS
from unipeft_run.config.stored import upgrade
from unipeft_run.runs.printable import printable

Config = Mapping[str, Any]
SHOWN_ELSEWHERE = ("seed", "backbone.weights", "backbone.name", "task.name")
SIZES = {"bottleneck": ("form.rank", "form.length"), "scale": ("composition.scale",)}
LONGEST = 200  # characters of a value


def find_differences(
    configs: Sequence[Config], excluded: Sequence[str] = SHOWN_ELSEWHERE
) -> list[str]:
    """Return, for each configuration, `key=value` for every key on which they differ."""
    found = tabulate_differences(configs, excluded)
    return [" ".join(f"{key}={value}" for key, value in values.items()) for values in found]


def tabulate_differences(
    configs: Sequence[Config], excluded: Sequence[str] = SHOWN_ELSEWHERE
) -> list[dict[str, str]]:
    """Return, for each configuration, the keys on which they differ, with its values.

    `excluded`: keys shown elsewhere. A missing key equals null, and is left out.
    """
    flat = [dict(_leaves(_comparable(config))) for config in configs]
    keys = list(dict.fromkeys(key for leaves in flat for key in leaves))
    sections = list(dict.fromkeys(key.partition(".")[0] for key in keys))
    keys.sort(key=lambda key: sections.index(key.partition(".")[0]))
    values = {key: {leaves.get(key, "null") for leaves in flat} for key in keys}
    differing = [key for key, found in values.items() if len(found) > 1 and key not in excluded]
    shown = [key for key in differing if not _is_implied(key, differing, flat)]
    return [
        {key.removesuffix("._target_"): leaves[key] for key in shown if key in leaves}
        for leaves in flat
    ]


def _comparable(config: Config) -> dict[str, Any]:
    """Return the scientific configuration of today's version.

    Each slot's sizes are added under their short names.
    """
    scientific = scientific_config(upgrade(config))
    slots = {
        slot: {**part, **{n: config[slot].get(n) for n in SIZES if _uses(n, part)}}
        for slot in SLOTS
        if isinstance(part := scientific.get(slot), Mapping)
    }
    return {**scientific, **slots}


def _uses(size: str, slot: Mapping[str, Any]) -> bool:
    """Return whether the slot's form or composition takes this size."""
    places = (tail.split(".") for tail in SIZES[size])
    return any(as_mapping(slot.get(axis)).get(key) is not None for axis, key in places)


def _is_implied(key: str, differing: Sequence[str], configs: Sequence[Mapping[str, str]]) -> bool:
    """Return whether another differing key implies this one: the slot's size, or the class."""
    slot, _, rest = key.partition(".")
    if any(f"{slot}.{n}" in differing and rest in tails for n, tails in SIZES.items()):
        return True
    target = f"{key.rpartition('.')[0]}._target_"
    if key == target or target not in differing:
        return False
    values: dict[str | None, set[str | None]] = {}
    for leaves in configs:
        values.setdefault(leaves.get(target), set()).add(leaves.get(key))
    return all(len(found) == 1 for found in values.values())


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys with their values as text; a class is shown by its last name."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif path.endswith("_target_"):
        yield path, _format(str(node).rpartition(".")[2])
    else:
        yield path, _format(node)


def _format(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return printable(f"[{','.join(map(str, value))}]", LONGEST)
    return f"{value:g}" if isinstance(value, float) else printable(value, LONGEST)


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, else an empty one; for parts of stored configurations."""
    return value if isinstance(value, Mapping) else {}
