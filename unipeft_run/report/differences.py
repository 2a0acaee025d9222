"""Find the overrides that distinguish configurations, to label rows and curves."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from unipeft_run.config.identity import scientific_config
from unipeft_run.config.schema import AXES, SLOTS
from unipeft_run.config.stored import upgrade
from unipeft_run.report.choices import IDENTIFYING, find_choice, fixed_values
from unipeft_run.runs.printable import printable

Config = Mapping[str, Any]
SHOWN_ELSEWHERE = ("seed", "backbone.weights", "backbone.name", "task.name")
SIZES = {
    "bottleneck": ("form.rank", "form.length"),
    "scale": ("composition.scale",),
    "mlp_width": ("form.mlp_width",),
}
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

    `excluded`: keys shown elsewhere. A missing key equals null, and is left out. The choice of an
    axis is shown as its override, such as composition@ffn=add, and an empty slot as ffn=null.
    """
    comparable = [_comparable(config) for config in configs]
    flat = [dict(_leaves(config)) for config in comparable]
    _name_choices(flat, comparable)
    keys = list(dict.fromkeys(key for leaves in flat for key in leaves))
    sections = list(dict.fromkeys(map(section_of, keys)))
    keys.sort(key=lambda key: (sections.index(section_of(key)), "@" not in key))
    absent = dict.fromkeys(SLOTS, "filled")
    values = {key: {leaves.get(key, absent.get(key, "null")) for leaves in flat} for key in keys}
    differing = [key for key, found in values.items() if len(found) > 1 and key not in excluded]
    shown = [key for key in differing if not _is_implied(key, differing, flat)]
    return [
        {
            key.removesuffix("._target_"): leaves[key]
            for key in shown
            if key in leaves and not _is_default(key, leaves, shown)
        }
        for leaves in flat
    ]


def _is_default(key: str, leaves: Mapping[str, str], shown: Collection[str]) -> bool:
    """Return whether a choice that is shown sets the key to this value."""
    choice, rest = _split(key)
    fixed = fixed_values(choice.partition("@")[0], leaves[choice]) if choice in leaves else {}
    return choice in shown and rest in fixed and leaves[key] == _format(fixed[rest])


def _split(key: str) -> tuple[str, str]:
    """Return the choice that a slot's key belongs to, such as form@ffn, and the rest of the key."""
    slot, _, rest = key.partition(".")
    axis = rest.partition(".")[0]
    return f"{axis if axis in AXES else 'form'}@{slot}", rest


def section_of(key: str) -> str:
    """Return the first part of a dotted key; of composition@ffn, the slot."""
    return key.partition("@")[2] or key.partition(".")[0]


def _name_choices(flat: Sequence[dict[str, str]], configs: Sequence[Config]) -> None:
    """Replace the class, sites or insertion of each slot by its choice, where they differ."""
    for slot, axis in itertools.product(SLOTS, AXES):
        parts = [as_mapping(config.get(slot)).get(axis) for config in configs]
        if all(part == parts[0] for part in parts):
            continue
        for leaves, part in zip(flat, parts, strict=True):
            if choice := find_choice(axis, part):
                key = IDENTIFYING.get(axis)
                leaves.pop(f"{slot}.{axis}.{key}" if key else f"{slot}.{axis}", None)
                leaves[f"{axis}@{slot}"] = choice


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
    return {**scientific, **{slot: slots.get(slot) for slot in SLOTS}}


def _uses(size: str, slot: Mapping[str, Any]) -> bool:
    """Return whether the slot's form or composition takes this size."""
    places = (tail.split(".") for tail in SIZES[size])
    return any(as_mapping(slot.get(axis)).get(key) is not None for axis, key in places)


def _is_implied(key: str, differing: Sequence[str], configs: Sequence[Mapping[str, str]]) -> bool:
    """Return whether another differing key implies this one: the slot's size, choice or class."""
    slot, _, rest = key.partition(".")
    sizes = (f"{slot}.{name}" for name, tails in SIZES.items() if rest in tails)
    having = [leaves for leaves in configs if key in leaves]
    for size in sizes:
        if size in differing and all(leaves.get(size) == leaves[key] for leaves in having):
            return True
    choice, _ = _split(key)
    axis = choice.partition("@")[0]
    target = f"{slot}.{axis}._target_" if slot in SLOTS else f"{key.rpartition('.')[0]}._target_"
    if key in (slot, choice, target) or not {choice, target} & set(differing):
        return False
    values: dict[str | None, set[str | None]] = {}
    for leaves in configs:
        fixed = fixed_values(axis, leaves[choice]) if choice in leaves else {}
        if rest in SIZES and rest not in fixed and key in leaves:
            return False
        if rest not in fixed:
            values.setdefault(leaves.get(choice, leaves.get(target)), set()).add(leaves.get(key))
        elif leaves.get(key, _format(fixed[rest])) != _format(fixed[rest]):
            return False
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
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return printable(f"[{','.join(map(str, value))}]", LONGEST)
    return f"{value:g}" if isinstance(value, float) else printable(value, LONGEST)


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, else an empty one; for parts of stored configurations."""
    return value if isinstance(value, Mapping) else {}
