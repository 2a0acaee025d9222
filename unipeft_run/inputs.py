"""The external inputs of a run, data and backbone, loaded before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unipeft_run.backbones.locate import locate
from unipeft_run.config.messages import unknown_choice
from unipeft_run.config.schema import RunConfig
from unipeft_run.data.tasks.build import build_task
from unipeft_run.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from unipeft_run.data.tasks.base import Task


FILE_SPLIT = "data"  # the only split of `load_file_inputs`


@dataclass(frozen=True)
class Inputs:
    """The inputs of one run: its task, the data by split, and the backbone's folder or hub id."""

    task: Task
    splits: dict[str, Dataset]
    backbone: str


def load_inputs(config: RunConfig, splits: Collection[str] | None = None) -> Inputs:
    """Load the data (of `splits`, by default all) and locate the backbone.

    Raises UserError, within seconds, if either is missing.
    """
    task = build_task(config.task, config.limit.model_dump())
    backbone = config.backbone
    source = locate(name=backbone.name, hub=backbone.hub, path=backbone.path)
    return Inputs(task, task.load(splits), source)


def load_file_inputs(config: RunConfig, file: Path) -> Inputs:
    """Load the examples of one file as the split FILE_SPLIT. Raises UserError, as `load_inputs`."""
    task, backbone = build_task(config.task), config.backbone
    dataset = task.load_file(file)
    source = locate(name=backbone.name, hub=backbone.hub, path=backbone.path)
    return Inputs(task, {FILE_SPLIT: dataset}, source)


def required_splits(config: RunConfig, split: str) -> tuple[str, ...]:
    """Return the splits needed to evaluate `split`. Raises UserError if it is unknown."""
    from unipeft_run.data.tasks.splits import SPLITS

    task = build_task(config.task)
    known = (*SPLITS, *task.optional_splits)
    if split not in known:
        raise UserError(unknown_choice("split", split, known))
    return task.splits_for(split)
