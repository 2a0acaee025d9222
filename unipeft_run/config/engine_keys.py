"""Explain unknown keys of hydra.launcher and hydra.sweeper: each engine has its own keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from unipeft_run.config.messages import dotted_keys, find_option, options, unknown_key
from unipeft_run.config.yaml_files import load_config

NODES = ("hydra.launcher", "hydra.sweeper")


def explain_engine_key(key: str, overrides: Sequence[str]) -> str | None:
    """Say which engine has `key`, or else which key is nearest; None outside these sections."""
    node = ".".join(key.split(".")[:2])
    if node not in NODES or node == key:
        return None
    group = node.replace(".", "/")
    keys = {name: [f"{node}.{own}" for own in own_keys] for name, own_keys in _engines(group)}
    if engines := [name for name, own_keys in keys.items() if key in own_keys]:
        return f"{key} needs {group}={' or '.join(engines)}"
    chosen = [word.partition("=")[2] for word in overrides if word.startswith(f"{group}=")]
    everywhere = [own for own_keys in keys.values() for own in own_keys]
    return unknown_key(key, keys.get(chosen[-1], everywhere) if chosen else everywhere)


def _engines(group: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each engine of a group of Hydra, installed or in our YAML files, with its keys."""
    Plugins.instance()  # registers the installed ones
    for file in ConfigStore.instance().list(group):
        if file.endswith(".yaml"):
            node = ConfigStore.instance().load(f"{group}/{file}").node
            yield file.removesuffix(".yaml"), _public_keys(node)
    for name in options(group):
        yield name, _public_keys(load_config(find_option(group, name)))


def _public_keys(node: Any) -> list[str]:
    keys = dotted_keys(OmegaConf.to_container(OmegaConf.create(node), resolve=False))
    return [key for key in keys if not key.startswith("_")]
