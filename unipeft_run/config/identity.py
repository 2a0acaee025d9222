"""The identity of a run: its scientific configuration, run id and folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from unipeft_run.config.contents import contents_of, identifying
from unipeft_run.config.declarations import is_ours
from unipeft_run.config.inert import existing_parts, inert_keys, refuse_inert, unread_keys
from unipeft_run.config.resolve import resolve
from unipeft_run.config.schema import SLOTS, RunConfig

# The sections that the numbers depend on. Names (method, scale), places and trackers are not.
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
# What changes files or speed, but not the numbers
UNSCIENTIFIC = {"recipe": ("log_every", "checkpoint_every"), "evaluation": ("batch_size",)}
NUMBERS = ("bottleneck", "scale", "mlp_width")  # of a slot: form and composition hold them


@dataclass(frozen=True)
class PlannedRun:
    """A configuration with its identity. `contents`: hashes of what its paths hold, by key."""

    config: RunConfig
    contents: Mapping[str, str]
    run_id: str
    folder: Path


def plan(cfg: DictConfig, overrides: Sequence[str] = ()) -> PlannedRun:
    """Check a composed configuration and compute its identity.

    `overrides`: the command line, on which keys without effect are refused. Raises UserError.
    """
    config = resolve(cfg)
    refuse_inert(config, overrides)
    return plan_config(config)


def plan_config(config: RunConfig) -> PlannedRun:
    """Compute the identity of a checked configuration."""
    contents = contents_of(config)
    identity = run_id(config, contents)
    output = Path(os.path.expanduser(config.output))
    folder = output / config.task.name / config.method / identity
    return PlannedRun(config, contents, identity, folder)


def run_id(config: RunConfig, contents: Mapping[str, str] | None = None) -> str:
    """8 hex digits: equal for equal science, whatever the order of the keys.

    `contents`: hashes of local data, weights and classes, which stand in for their paths.
    """
    plain = _canonical(config)
    for key, digest in identifying(contents or {}).items():
        _set(plain, key, digest)
    return digest_of(science(plain))


def science(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a plain configuration that the numbers depend on."""
    part = {key: value for key, value in plain.items() if key in SCIENTIFIC}
    for section, keys in UNSCIENTIFIC.items():
        part[section] = {k: v for k, v in plain.get(section, {}).items() if k not in keys}
    for slot in SLOTS:
        if part.get(slot) is not None:
            part[slot] = {k: v for k, v in part[slot].items() if k not in NUMBERS}
    return part


def digest_of(science: Mapping[str, Any]) -> str:
    """8 hex digits of a scientific configuration; nulls do not count, 4.0 is 4."""
    canonical = json.dumps(_normal(science), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def _canonical(config: RunConfig) -> dict[str, Any]:
    """The plain configuration without keys that have no effect or that the family lacks."""
    plain = config.plain()
    for key in (*(key for key, _ in inert_keys(config)), *unread_keys(config)):
        _set(plain, key, None)
    for name, slot in config.slots().items():
        where = plain[name]["representation"]
        for key, parts in existing_parts(config, slot).items():
            where[key] = parts if where[key] is not None else None
    return plain


def _set(plain: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        plain = plain[parent]
    plain[last] = value


def _normal(node: Any) -> Any:
    """`node` without nulls, numbers as integers where they are whole, our classes by name.

    So a new optional key and a module that moves leave the ids of older runs as they were.
    """
    if isinstance(node, dict):
        normal = {str(key): _normal(value) for key, value in node.items() if value is not None}
        if is_ours(target := str(normal.get("_target_", ""))):
            normal["_target_"] = target.rpartition(".")[2]
        return normal
    if isinstance(node, list):
        return [_normal(value) for value in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node
