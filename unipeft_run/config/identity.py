"""The identity of a run: its scientific configuration, its run id and its folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from unipeft_run.config.contents import hash_contents, identity_hashes
from unipeft_run.config.declarations import is_ours
from unipeft_run.config.inert import existing_parts, inert_keys, refuse_inert, unread_keys
from unipeft_run.config.resolve import resolve
from unipeft_run.config.rules import check_slots
from unipeft_run.config.schema import SLOTS, RunConfig

# Sections that affect the results. Names (method, scale), paths and trackers do not.
SCIENTIFIC = (
    "task",
    "backbone",
    *SLOTS,
    "peft",
    "unfreeze",
    "head",
    "recipe",
    "optim",
    "evaluation",
    "limit",
    "seed",
    "precision",
    "compute",
    "deterministic",
)
# Keys that affect files or speed, not results
UNSCIENTIFIC = {"recipe": ("log_every", "checkpoint_every"), "evaluation": ("batch_size",)}
SIZES = ("bottleneck", "scale", "mlp_width")  # keys of a slot, repeated in form and composition


@dataclass(frozen=True)
class PlannedRun:
    """A configuration with its run id and folder. `contents`: content hashes of its paths."""

    config: RunConfig
    contents: Mapping[str, str]
    run_id: str
    folder: Path


def plan(cfg: DictConfig, overrides: Sequence[str] = ()) -> PlannedRun:
    """Check a composed configuration and compute its identity.

    Raises UserError, also for a key in `overrides` that has no effect.
    """
    return plan_config(check_config(cfg, overrides))


def check_config(cfg: DictConfig, overrides: Sequence[str] = ()) -> RunConfig:
    """Resolve a composed configuration that could be trained.

    Raises UserError, also for a key in `overrides` that has no effect.
    """
    config = resolve(cfg)
    check_slots(config)
    refuse_inert(config, overrides)
    return config


def plan_config(config: RunConfig) -> PlannedRun:
    """Compute the identity of a checked configuration."""
    contents = hash_contents(config)
    identity = run_id(config, contents)
    output = Path(os.path.expanduser(config.output))
    folder = output / config.task.name / folder_name(config.method) / identity
    return PlannedRun(config, contents, identity, folder)


def folder_name(method: str) -> str:
    """Return the folder of a method's runs: `peft-dora` for the method `peft/dora`."""
    return method.replace("/", "-")


def run_id(config: RunConfig, contents: Mapping[str, str] | None = None) -> str:
    """Return 8 hex digits that identify the scientific configuration, whatever its key order.

    `contents`: content hashes of local data, weights and classes, which replace their paths.
    """
    plain = _canonical_config(config)
    for key, digest in identity_hashes(contents or {}).items():
        _set_key(plain, key, digest)
    return hash_config(scientific_config(plain))


def scientific_config(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a plain configuration that affects the results."""
    part = {key: value for key, value in plain.items() if key in SCIENTIFIC}
    for section, keys in UNSCIENTIFIC.items():
        part[section] = {k: v for k, v in plain.get(section, {}).items() if k not in keys}
    if not any(value is not None for value in (part.get("compute") or {}).values()):
        part.pop("compute", None)  # keep the ids of runs from before this section existed
    for slot in SLOTS:
        if part.get(slot) is not None:
            part[slot] = {k: v for k, v in part[slot].items() if k not in SIZES}
    return part


def hash_config(config: Mapping[str, Any]) -> str:
    """Hash a scientific configuration to 8 hex digits; nulls are ignored, and 4.0 equals 4."""
    canonical = json.dumps(_normalise(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def _canonical_config(config: RunConfig) -> dict[str, Any]:
    """Return the plain configuration without inert keys and without parts the family lacks."""
    plain = config.plain()
    for key in (*(key for key, _ in inert_keys(config)), *unread_keys(config)):
        _set_key(plain, key, None)
    for name, slot in config.slots().items():
        representation = plain[name]["representation"]
        for key, parts in existing_parts(config, slot).items():
            representation[key] = parts if representation[key] is not None else None
    return plain


def _set_key(plain: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        plain = plain[parent]
    plain[last] = value


def _normalise(node: Any) -> Any:
    """Drop nulls, turn whole floats into integers, and reduce our classes to their names.

    A new optional key or a moved module therefore leaves the ids of older runs unchanged.
    """
    if isinstance(node, dict):
        normal = {str(key): _normalise(value) for key, value in node.items() if value is not None}
        if is_ours(target := str(normal.get("_target_", ""))):
            normal["_target_"] = target.rpartition(".")[2]
        return normal
    if isinstance(node, list):
        return [_normalise(value) for value in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node
