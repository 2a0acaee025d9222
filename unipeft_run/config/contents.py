"""Content hashes of the local data, local weights and user-defined classes of a configuration."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from unipeft_run.config.declarations import is_ours
from unipeft_run.config.schema import RunConfig
from unipeft_run.config.user_sources import find_sources
from unipeft_run.data.fingerprint import combine, fingerprint_files
from unipeft_run.errors import UserError

DATA, BACKBONE, SOURCE = "data", "backbone.path", "_source_"
PATHS = ("backbone.path", "task.path", "task.data")  # keys whose content is hashed
BACKBONE_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")


def hash_contents(config: RunConfig, splits: Collection[str] | None = None) -> dict[str, str]:
    """Hash the local data (of `splits`, by default all), the local backbone and users' classes.

    A missing backbone is skipped, because locating it raises the error. Raises UserError for data
    that cannot be read.
    """
    hashes = {f"{DATA}.{name}": digest for name, digest in _hash_data(config, splits).items()}
    if config.backbone.path is not None:
        folder = Path(config.backbone.path)
        files = sorted({file for pattern in BACKBONE_FILES for file in folder.glob(pattern)})
        if files:
            hashes[BACKBONE] = fingerprint_files(files)
    return {**hashes, **dict(_hash_sources(config))}


def identity_hashes(contents: Mapping[str, str]) -> dict[str, str | None]:
    """Return the hashes that replace paths in a run's identity, by configuration key."""
    data = {key: digest for key, digest in contents.items() if key.startswith(f"{DATA}.")}
    rest = {key: digest for key, digest in contents.items() if key not in data}
    return {**rest, **({"task.path": combine(data), "task.data": None} if data else {})}


def replace_paths(config: Mapping[str, Any], contents: Mapping[str, str]) -> dict[str, Any]:
    """Return a plain configuration with hashes in place of the paths that `contents` covers."""
    replaced = dict(config)
    for key, digest in identity_hashes(contents).items():
        section, _, name = key.partition(".")
        if key in PATHS and isinstance(part := replaced.get(section), Mapping):
            replaced[section] = {**part, name: digest and digest[:8]}
    return replaced


def check_unchanged(run: Path, expected: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise UserError if data, weights or a class changed after the run was trained."""
    changed = _changed_keys(expected, now)
    if changed:
        names = " and ".join(map(_describe, changed))
        remedies = " and ".join(dict.fromkeys(map(_remedy, changed)))
        raise UserError(
            f"{names} changed after the run in {run} was trained; {remedies}, or train again"
        )


def describe_changes(before: Mapping[str, object], now: Mapping[str, str]) -> list[str]:
    """Describe what has other content than before, among what both name."""
    return list(map(_describe, _changed_keys(before, now)))


def _changed_keys(before: Mapping[str, object], now: Mapping[str, str]) -> list[str]:
    return [key for key in before if key in now and now[key] != before[key]]


def _remedy(key: str) -> str:
    """Return the advice for restoring the original of a changed input."""
    if key == BACKBONE:
        return "give the original with backbone.path=DIR"
    is_data = key.startswith(f"{DATA}.")
    return "give the original with task.path=DIR" if is_data else "restore that source"


def _describe(key: str) -> str:
    if key == BACKBONE:
        return "the backbone"
    section, _, name = key.rpartition(".")
    return f"the {name} data" if section == DATA else f"the source of {section}"


def _hash_data(config: RunConfig, splits: Collection[str] | None) -> Mapping[str, str]:
    from unipeft_run.data.tasks.build import build_task

    if config.task.path is None and config.task.data is None:
        return {}
    return build_task(config.task).fingerprints(splits)


def foreign_classes(config: RunConfig) -> list[str]:
    """Return the dotted names of the classes outside this package that `config` names."""
    return sorted({target for target in class_targets(config).values() if not is_ours(target)})


def class_targets(config: RunConfig) -> dict[str, str]:
    """Return the classes that `config` names, by key."""
    targets = {"task": config.task.target}
    for name, slot in config.slots().items():
        targets[f"{name}.form"] = slot.form.target
        targets[f"{name}.composition"] = slot.composition.target
    return targets


def _hash_sources(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield key and hash of the source of each class outside this package."""
    for key, target in class_targets(config).items():
        if not is_ours(target) and (files := find_sources(target.rpartition(".")[0])):
            yield f"{key}.{SOURCE}", fingerprint_files(files)
