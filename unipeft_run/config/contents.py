"""Content hashes of local data, local weights and foreign classes that a configuration names."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from unipeft_run.config.declarations import is_ours
from unipeft_run.config.schema import RunConfig
from unipeft_run.data.fingerprint import combine, fingerprint, fingerprint_files
from unipeft_run.errors import UserError

CONTENTS = "contents.json"  # of a run folder: the hashes that it was made of
DATA, BACKBONE, SOURCE = "data", "backbone.path", "_source_"
BACKBONE_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")


def contents_of(config: RunConfig, splits: Collection[str] | None = None) -> dict[str, str]:
    """Hash the local data (of `splits`, by default all), the local backbone and foreign sources.

    A missing backbone is left out: locating it raises the error. Raises UserError for data that
    cannot be read.
    """
    found = {f"{DATA}.{name}": digest for name, digest in _data(config, splits).items()}
    if config.backbone.path is not None:
        folder = Path(config.backbone.path)
        files = sorted({file for pattern in BACKBONE_FILES for file in folder.glob(pattern)})
        if files:
            found[BACKBONE] = fingerprint_files(files)
    return {**found, **{key: fingerprint(file) for key, file in _foreign_sources(config)}}


def identifying(contents: Mapping[str, str]) -> dict[str, str]:
    """The hashes that take the place of paths in a run's identity, by key of the configuration."""
    data = {key: digest for key, digest in contents.items() if key.startswith(f"{DATA}.")}
    rest = {key: digest for key, digest in contents.items() if key not in data}
    return {**rest, **({"task.path": combine(data)} if data else {})}


def check_unchanged(run: Path, expected: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise UserError if data, weights or a class differ from what the run was made of."""
    if names := changed(expected, now):
        raise UserError(
            f"{' and '.join(names)} changed since the run in {run}; "
            "give the original with task.path=DIR or backbone.path=DIR, or train again"
        )


def changed(before: Mapping[str, object], now: Mapping[str, str]) -> list[str]:
    """Describe what has other content than before, among what both name."""
    return [_description(key) for key in before if key in now and now[key] != before[key]]


def _description(key: str) -> str:
    if key == BACKBONE:
        return "the backbone"
    section, _, name = key.rpartition(".")
    return f"the {name} data" if section == DATA else f"the source of {section}"


def _data(config: RunConfig, splits: Collection[str] | None) -> Mapping[str, str]:
    from unipeft_run.data.tasks.build import build_task

    if config.task.path is None:
        return {}
    return build_task(config.task).fingerprints(splits)


def _foreign_sources(config: RunConfig) -> Iterator[tuple[str, Path]]:
    """Find the source files of classes outside this package, without importing them."""
    targets = {"task": config.task.target}
    for name, slot in config.slots().items():
        targets[f"{name}.form"] = slot.form.target
        targets[f"{name}.composition"] = slot.composition.target
    for key, target in targets.items():
        if not is_ours(target) and (file := _source_of(target.rpartition(".")[0])):
            yield f"{key}.{SOURCE}", file


def _source_of(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None
