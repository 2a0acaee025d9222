"""Presets: the sizes and recipes of each method, a page per scale in conf/preset/.

Hydra composes files, and a file for each method, task and scale would be a hundred files of three
lines. So the sections of a page are registered with Hydra as if they were files.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore

from unipeft_run.config.messages import conf_dir, options

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def register_presets() -> None:
    """Register every method of every section, as conf/train.yaml names them."""
    store = ConfigStore.instance()
    for page in sorted((conf_dir() / "preset").glob("*.yaml")):
        sections: dict[str, Any] = yaml.load(page.read_bytes(), LOADER)
        for section, methods in sections.items():
            for method, settings in methods.items():
                group = _group(section, page.stem)
                store.store(method, settings, group=group, package="_global_")


def _group(section: str, scale: str) -> str:
    if section == "any":
        return f"preset/any/{scale}"
    level = "task_type" if section in options("task_type") else "task"
    return f"preset/{level}/{scale}/{section}"
