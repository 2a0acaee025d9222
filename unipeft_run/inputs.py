"""What a run needs from outside, looked for before anything heavy is imported."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unipeft_run.backbones.locate import locate
from unipeft_run.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from unipeft_run.data.tasks.base import Task


@dataclass(frozen=True)
class Inputs:
    """A task's data, by split, and where the backbone is."""

    task: Task
    splits: dict[str, Dataset]
    backbone: str


def gather(cfg: Mapping[str, Any]) -> Inputs:
    """Load the data, find the backbone. Raises UserError, within seconds, for what is missing."""
    settings = {**cfg["task"], "limit": cfg["limit"]}
    module, _, name = settings.pop("_target_").rpartition(".")
    try:
        task = getattr(importlib.import_module(module), name)(**settings)
    except TypeError as problem:  # a key that was added with +
        raise UserError(f"task {settings['name']}: {problem}") from None
    splits = task.load()
    source = locate(**{key: cfg["backbone"][key] for key in ("name", "hub", "path")})
    return Inputs(task, splits, source)
