"""Presets: the sizes and recipes of each method, one file per scale in conf/preset/.

One Hydra file per method, task and scale would mean a hundred files of three lines. Instead, the
sections of a preset file are registered with Hydra as if they were files.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore

from unipeft_run.config.messages import options
from unipeft_run.extensions import conf_dir, config_dirs

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def register_presets() -> None:
    """Register every method of every section under the group names used in conf/train.yaml."""
    for folder in (*reversed(config_dirs()), conf_dir()):  # the last folder takes precedence
        _register(folder / "preset")


@cache
def _register(folder: Path) -> None:
    store = ConfigStore.instance()
    for file in sorted(folder.glob("*.yaml")):
        sections: dict[str, Any] = yaml.load(file.read_bytes(), LOADER)
        for section, methods in sections.items():
            for method, settings in methods.items():
                parents, _, name = f"{_group(section, file.stem)}/{method}".rpartition("/")
                store.store(name, settings, group=parents, package="_global_")


def _group(section: str, scale: str) -> str:
    if section == "any":
        return f"preset/any/{scale}"
    level = "task_type" if section in options("task_type") else "task"
    return f"preset/{level}/{scale}/{section}"
