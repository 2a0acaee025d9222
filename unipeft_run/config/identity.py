"""Which run a configuration is: its id, its folder, and reading it back from there."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unipeft_run.config.resolve import resolve
from unipeft_run.config.schema import SLOTS
from unipeft_run.errors import UserError

# What the numbers come from. Names (method, scale), the place (output) and sinks are not in it.
SCIENTIFIC = (
    "task",
    "backbone",
    *SLOTS,
    "unfreeze",
    "head",
    "recipe",
    "optim",
    "evaluation",
    "limit",
    "seed",
    "precision",
)
CADENCE = ("log_every", "checkpoint_every")  # of the recipe: change what is written, not what is
# Keys of the recipe that are newer than stored runs: at these values a run's id is the old one.
NEWER_DEFAULTS = {"accumulation_weighting": "equal"}
# Modules of version 0.1 that classes in stored configurations come from, and their package today.
MOVED = {"tasks": "data", "forms": "deltas", "compositions": "deltas"}
PACKAGE = Path(__file__).parent.parent


def run_id(cfg: DictConfig | Mapping[str, Any]) -> str:
    """8 hex digits: the same for the same science, whatever the order of the keys."""
    canonical = json.dumps(_plain(science(cfg)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def run_folder(cfg: DictConfig | Mapping[str, Any]) -> Path:
    """output/task/method/run_id."""
    config = _resolved(cfg)
    return Path(config["output"]) / config["task"]["name"] / config["method"] / run_id(config)


def science(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The part of the resolved configuration that the numbers depend on."""
    config = {key: value for key, value in _resolved(cfg).items() if key in SCIENTIFIC}
    recipe = {k: v for k, v in config["recipe"].items() if k not in CADENCE}
    config["recipe"] = {k: v for k, v in recipe.items() if NEWER_DEFAULTS.get(k) != v}
    for slot in SLOTS:
        if config.get(slot) is not None:  # its numbers stand in form and composition, where used
            numbers = ("bottleneck", "scale", "mlp_width")
            config[slot] = {k: v for k, v in config[slot].items() if k not in numbers}
    return config


def load(folder: Path, allow: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration in a run folder, as data: nothing of it is executed.

    A `_target_` must name a class defined in this package, or start with a prefix in `allow`, and
    the whole be a configuration that could run. Raises `UserError`.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(f"{folder} is not a run folder: there is no config.yaml in it")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is damaged: {str(error).splitlines()[0]}") from None
    if not isinstance(config, dict):
        raise UserError(f"{file} is damaged: it does not hold a configuration")
    config = _with_current_targets(config)
    for key, value in _leaves(config):
        if key == "_target_" and not (_is_ours(value) or str(value).startswith(tuple(allow))):
            raise UserError(f"{file} wants to run {value}; if you trust it, allow=[{value}]")
        if isinstance(value, str) and "${" in value:
            raise UserError(f"{file} holds an expression, {value}; a run's values are plain")
    try:
        resolve(OmegaConf.create(config))
    except (UserError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} does not hold a whole configuration: {reason}") from None
    return cast("dict[str, Any]", config)


def _with_current_targets(node: Any) -> Any:
    """`node` with the classes that an older version names where they are defined today."""
    if isinstance(node, dict):
        return {
            k: _current(v) if k == "_target_" else _with_current_targets(v) for k, v in node.items()
        }
    return [_with_current_targets(value) for value in node] if isinstance(node, list) else node


def _current(target: Any) -> Any:
    package, _, rest = str(target).partition(".")
    moved = MOVED.get(rest.partition(".")[0]) if package == PACKAGE.name else None
    return f"{package}.{moved}.{rest}" if moved else target


def _resolved(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    return resolve(cfg) if isinstance(cfg, DictConfig) else dict(cfg)


def _plain(node: Any) -> Any:
    """`node` without nulls, and with 4.0 as 4: a new optional key leaves old ids as they are."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items() if value is not None}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, str(name))
    else:
        yield key, node


def _is_ours(target: Any) -> bool:
    """Whether `target` is the dotted name of a class whose definition stands in this package.

    Not just a prefix: `unipeft_run.module.os.system` starts with ours, and is not.
    """
    module, _, name = str(target).rpartition(".")
    package, *parts = module.split(".")
    file = PACKAGE.joinpath(*parts).with_suffix(".py")
    if package != PACKAGE.name or not all(p.isidentifier() for p in parts) or not file.is_file():
        return False
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body)
