"""Content hashes of local data, local weights and foreign classes that a configuration names."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

from unipeft_run.config.declarations import is_ours
from unipeft_run.config.schema import RunConfig
from unipeft_run.data.fingerprint import fingerprint
from unipeft_run.errors import UserError

DESCRIPTIONS = {"task.path": "the data at task.path", "backbone.path": "the backbone's files"}


def contents_of(config: RunConfig) -> dict[str, str]:
    """Hash the local data, the local backbone and the source of foreign classes, by key.

    A missing path is left out: loading it raises the error.
    """
    named = {"task.path": config.task.path, "backbone.path": config.backbone.path}
    paths = {key: Path(path) for key, path in named.items() if path is not None}
    paths |= dict(_foreign_sources(config))
    return {key: fingerprint(path) for key, path in paths.items() if path.exists()}


def _foreign_sources(config: RunConfig) -> Iterator[tuple[str, Path]]:
    """The source files of classes outside this package, which are found, not imported."""
    targets = {"task._source_": config.task.target}
    for name, slot in config.slots().items():
        targets[f"{name}.form._source_"] = slot.form.target
        targets[f"{name}.composition._source_"] = slot.composition.target
    for key, target in targets.items():
        if not is_ours(target) and (file := _source_of(target.rpartition(".")[0])):
            yield key, file


def _source_of(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


def check_unchanged(run: Path, expected: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise UserError if data, weights or a class differ from what the run was made of."""
    for key, digest in expected.items():
        if key in now and now[key] != digest:
            what = DESCRIPTIONS.get(key, f"the source of {key.removesuffix('._source_')}")
            raise UserError(
                f"{what} changed since the run in {run}; "
                "give the original with task.path=DIR or backbone.path=DIR, or train again"
            )
