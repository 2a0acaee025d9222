"""Find and check a finished run before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipeft_run.backbones.locate import locate
from unipeft_run.config import RunConfig, load
from unipeft_run.config.contents import check_unchanged, hash_contents
from unipeft_run.config.inert import inert_decoding_keys
from unipeft_run.config.resolve import make_absolute
from unipeft_run.config.rules import check_forced_bos, check_min_length
from unipeft_run.config.schema import DecodingConfig
from unipeft_run.config.validation import check
from unipeft_run.data.tasks.build import build_task
from unipeft_run.errors import UserError
from unipeft_run.runs.folder import CONTENTS, check_has_delta, read_object
from unipeft_run.runs.search import find_run

BACKBONE = "backbone"  # the folder in an exported run that holds its backbone
LIMITS = frozenset({"min_length", "max_length", "max_new_tokens"})  # keys of evaluation.decoding


@dataclass(frozen=True)
class StoredRun:
    """A finished run on disk; its configuration names the current places of its inputs."""

    folder: Path
    config: RunConfig

    def locate_backbone(self) -> str:
        """Return the folder or hub id of the backbone. Raises UserError if it cannot be found."""
        backbone = self.config.backbone
        return locate(name=backbone.name, hub=backbone.hub, path=backbone.path)

    def check_contents(self, splits: Sequence[str] = ()) -> None:
        """Raise UserError if the backbone, a class or the data of `splits` changed since."""
        recorded = read_object(self.folder / CONTENTS)
        check_unchanged(self.folder, recorded, hash_contents(self.config, splits))


def open_run(
    path: Path | str,
    *,
    allow: str | Sequence[str] = (),
    backbone_path: Path | str | None = None,
) -> StoredRun:
    """Find a finished run and read its configuration, as data.

    The arguments are those of `load_run`. Raises UserError, before anything heavy is imported.
    """
    folder = find_run(str(path))
    config = relocate(load(folder, allow), folder, backbone_path=backbone_path)
    check_has_delta(folder)
    run = StoredRun(folder, config)
    run.check_contents()
    return run


def relocate(
    config: RunConfig,
    folder: Path,
    *,
    task_path: Path | str | None = None,
    backbone_path: Path | str | None = None,
) -> RunConfig:
    """Replace the paths of the data and the backbone, unless they are None.

    An exported run in `folder` holds its backbone, which is the default there.
    """
    own = folder / BACKBONE
    if backbone_path is None and (own / "config.json").is_file():
        backbone_path = own
    sections: dict[str, Any] = {}
    if task_path is not None:
        sections["task"] = config.task.model_copy(update={"path": make_absolute(str(task_path))})
    if backbone_path is not None:
        path = make_absolute(str(backbone_path))
        sections["backbone"] = config.backbone.model_copy(update={"path": path})
    return config.model_copy(update=sections)


def override_decoding(config: RunConfig, changes: Mapping[str, Any]) -> DecodingConfig | None:
    """Return the decoding settings of `config` with `changes`; None if its task generates no text.

    Raises UserError for an unknown key, a wrong value, and a key that would have no effect.
    """
    decoding, task = config.evaluation.decoding, build_task(config.task)
    if decoding is None or not task.generates:
        for key in changes:
            raise UserError(f"{key}= has no effect: task {task.name} generates no text")
        return None
    settings = check(DecodingConfig, {**decoding.model_dump(), **changes})
    for key, reason in inert_decoding_keys(settings):
        if changes.get(key) is not None:
            raise UserError(f"{key}={changes[key]} has no effect: {reason}")
    if not LIMITS.isdisjoint(changes):
        check_min_length(settings, task.kind)
    if "forced_bos" in changes:
        check_forced_bos(settings, config)
    return settings


def choose_batch_size(config: RunConfig, batch_size: Any) -> int:
    """Return `batch_size`, by default that of the run. Raises UserError."""
    size = config.evaluation.batch_size if batch_size is None else batch_size
    if type(size) is not int or size < 1:
        raise UserError(f"batch_size={size}: must be a whole number, at least 1")
    return size
