"""Presets: the sizes and recipes of each method, one file per scale in conf/preset/.

One Hydra file per method, task and scale would mean a hundred files of three lines. Instead, the
sections of a preset file are registered with Hydra as if they were files.

`axes` of a method under a task choose other axes than the method's own file, as in
`axes: {representation@ffn: ffn_up_down}`. They act as overrides that the command line replaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore

from unipeft_run.config.messages import options, shorten
from unipeft_run.config.yaml_files import describe_yaml_error, unreadable
from unipeft_run.errors import UserError
from unipeft_run.extensions import conf_dir, config_dirs, file_stamp

AXES_KEY = "axes"
_axes: dict[tuple[str, str], dict[str, str]] = {}  # (group, method) -> axis -> its choice
_registered: list[object] = []  # the stamp of the files that are registered
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def register_presets() -> None:
    """Register every method of every section under the group names used in conf/train.yaml.

    Once, and again after an edit or with other extension folders.
    """
    folders = (*reversed(config_dirs()), conf_dir())  # the last folder takes precedence
    stamp = tuple(file_stamp(folder / "preset") for folder in folders)
    if _registered != [stamp]:
        _axes.clear()
        for folder in folders:
            _register(folder / "preset")
        _registered[:] = [stamp]


def preset_axes(values: Mapping[str, str]) -> list[str]:
    """Return overrides for the axes that the preset of a command line chooses.

    `values`: the keys of the command line, which take precedence, with their values.
    """
    register_presets()
    group = _group(values.get("task", ""), values.get("scale", "paper"))
    chosen = _axes.get((group, values.get("method", "")), {})
    return [f"{axis}={choice}" for axis, choice in chosen.items() if axis not in values]


def _register(folder: Path) -> None:
    store = ConfigStore.instance()
    for file in sorted(folder.glob("*.yaml")):
        for section, methods in _load_sections(file).items():
            for method, settings in methods.items():
                group = _group(section, file.stem)
                parents, _, name = f"{group}/{method}".rpartition("/")
                others = {key: value for key, value in settings.items() if key != AXES_KEY}
                store.store(name, others, group=parents, package="_global_")
                _axes[group, method] = dict(settings.get(AXES_KEY, {}))


def _load_sections(file: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Load a preset file: section -> method -> settings. Raises UserError."""
    try:
        sections = yaml.load(file.read_text(encoding="utf-8"), LOADER)
    except yaml.YAMLError as error:
        raise UserError(describe_yaml_error(error, file)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from None
    _require_keys(file, "the file", sections)
    for section, methods in sections.items():
        _require_keys(file, section, methods)
        for method, settings in methods.items():
            _require_keys(file, f"{section}.{method}", settings)
            _require_keys(file, f"{section}.{method}.{AXES_KEY}", settings.get(AXES_KEY, {}))
    return sections


def _require_keys(file: Path, name: str, node: Any) -> None:
    if not isinstance(node, dict):
        holds = "nothing" if node is None else shorten(node)
        raise UserError(
            f"{file}: {name} holds {holds}; sections hold methods, and methods settings, as in "
            f"{conf_dir() / 'preset' / 'mini.yaml'}"
        )


def _group(section: str, scale: str) -> str:
    if section == "any":
        return f"preset/any/{scale}"
    level = "task_type" if section in options("task_type") else "task"
    return f"preset/{level}/{scale}/{section}"
