"""Sections of a configuration that a class takes by name: which keys they may have."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml

from unipeft_run.config.legality import is_ours
from unipeft_run.config.messages import conf_dir, shown, unknown_key
from unipeft_run.config.schema import SLOTS
from unipeft_run.errors import UserError

TRACKING = {
    "tracking": ("console", "wandb", "tensorboard"),
    "tracking.console": ("every",),
    "tracking.wandb": ("mode", "project", "entity", "group", "job_type", "tags", "name"),
}
PATHS = ("task.path", "backbone.path", "output", "tracking.tensorboard")


def check_sections(config: dict[str, Any]) -> None:
    """Raises `UserError` for a key that is not known in its section, and for an empty path."""
    check_slots(config)
    for path, known in TRACKING.items():
        value = _value(config, path)
        if value is None and path == "tracking.wandb":  # off
            continue
        if not isinstance(value, dict):
            given = "null" if value is None else shown(value)
            raise UserError(f"{path}={given} is no section; it has {', '.join(known)}")
        _check_keys(path, value, known)
    for path in PATHS:
        if str(_value(config, path)).strip() == "":
            raise UserError(f"{path} is empty; give a folder, as in {path}=DIR, or leave it out")


def check_slots(config: dict[str, Any]) -> None:
    """Raises `UserError` for a key that its form or composition does not have."""
    for slot in SLOTS:
        for axis in ("form", "composition") if config[slot] else ():
            node = config[slot][axis]
            if is_ours(node) and (known := _keys_of(axis, node["_target_"])):
                _check_keys(f"{slot}.{axis}", node, known)
                if node.get("_partial_") is not True:  # its site is still to come
                    raise UserError(f"{slot}.{axis}._partial_ is not true, as it is in its file")


def _check_keys(path: str, node: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in node:
        if key not in known:
            raise UserError(unknown_key(f"{path}.{key}", [f"{path}.{name}" for name in known]))


@cache
def _keys_of(axis: str, target: str) -> tuple[str, ...]:
    """The keys that the files of `axis` give to the class `target`."""
    files = sorted((conf_dir() / axis).glob("*.yaml"))
    nodes = [yaml.safe_load(file.read_bytes()).get(axis, {}) for file in files]
    keys = [key for node in nodes if node.get("_target_") == target for key in node]
    return tuple(dict.fromkeys(keys))


def _value(config: dict[str, Any], path: str) -> Any:
    value: Any = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
