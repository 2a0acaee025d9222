"""External inputs of a run, loaded before anything heavy is imported: data and the backbone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unipeft_run.backbones.locate import locate
from unipeft_run.config.schema import RunConfig
from unipeft_run.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from unipeft_run.data.tasks.base import Task


@dataclass(frozen=True)
class Inputs:
    """The task, its data by split, and the backbone's folder or hub id."""

    task: Task
    splits: dict[str, Dataset]
    backbone: str


def load_inputs(config: RunConfig, split: str | None = None) -> Inputs:
    """Load the data and locate the backbone; `split`: only what evaluating that split needs.

    Raises UserError, within seconds, for what is missing.
    """
    task = build_task(config)
    splits = task.load(only=_needed(task, split) if split else None)
    backbone = config.backbone
    return Inputs(task, splits, locate(name=backbone.name, hub=backbone.hub, path=backbone.path))


def build_task(config: RunConfig) -> Task:
    """Build the task of a configuration. Raises UserError for a key that it does not have."""
    import importlib

    module, _, name = config.task.target.rpartition(".")
    settings = {**config.task.keywords, "limit": config.limit.model_dump()}
    try:
        task: Any = getattr(importlib.import_module(module), name)
        return task(**settings)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as problem:
        target = config.task.target
        raise UserError(f"task._target_={target} cannot be imported: {problem}") from None
    except TypeError as problem:  # a key that was added with +
        raise UserError(f"task {config.task.name}: {problem}") from None


def _needed(task: Task, split: str) -> Collection[str]:
    """The split and those that are evaluated with it. Raises UserError for an unknown split."""
    from unipeft_run.data.tasks.base import SPLITS

    known = (*SPLITS, *task.optional_splits)
    if split not in known:
        raise UserError(f"split={split} is unknown; choose from {', '.join(known)}")
    return {split, *(beside.split for beside in task.beside.get(split, {}).values())}
