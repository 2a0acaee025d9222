"""The straight path: a configuration becomes a trained, evaluated, written-down model.

Nothing heavy is imported until the data and the backbone are known to be there.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from unipeft_run import config as configuration
from unipeft_run.backbones.locate import locate
from unipeft_run.errors import UserError
from unipeft_run.run_folder import RunFolder

if TYPE_CHECKING:
    from datasets import Dataset

    from unipeft_run.tasks.base import Task


@dataclass(frozen=True)
class Inputs:
    """What a run needs from outside: a task's data, by split, and where the backbone is."""

    task: Task
    splits: dict[str, Dataset]
    backbone: str


def run(cfg: DictConfig) -> dict[str, Any]:
    """Train, select, test and write down one configuration; a finished one is only read.

    Returns the run's metrics with `state`: `done`, `skipped` where it was there already, or
    `diverged` with the `error`. Raises UserError for what the user can mend.
    """
    plain = configuration.resolve(cfg)
    folder = RunFolder(configuration.run_folder(cfg))
    if not plain["force"] and (folder.path / "metrics.json").is_file():
        print(f"done already: {folder.path} (force=true starts afresh)")
        return {**folder.read_json("metrics.json"), "state": "skipped"}
    inputs = gather(plain)
    from unipeft_run.experiment import Experiment
    from unipeft_run.trainer import Diverged

    if plain["force"]:
        folder.clear()
    try:
        return {**Experiment(plain, inputs).train(folder), "state": "done"}
    except Diverged as problem:
        return {"state": "diverged", "error": f"{problem}; the last checkpoint is kept"}
    except Exception as problem:
        folder.mark("failed", error=f"{type(problem).__name__}: {problem}")
        raise


def evaluate(folder: Path, split: str = "test", allow: Sequence[str] = ()) -> dict[str, float]:
    """The metrics of a finished run on `split`, from its stored delta alone.

    `allow`: prefixes of classes outside this package that the run's configuration may name.
    Raises UserError for a folder that holds no finished run, and for an unknown split.
    """
    cfg = configuration.load(folder, allow)
    inputs = gather(cfg)
    if split not in inputs.splits:
        raise UserError(f"no split {split!r}: have {', '.join(inputs.splits)}")
    from unipeft_run.delta_file import load_delta
    from unipeft_run.experiment import Experiment, folded

    stored = Experiment({**cfg, **folded(cfg)}, inputs)
    load_delta(stored.model, folder)
    return stored.evaluator(stored.model, split).metrics


def gather(cfg: Mapping[str, Any]) -> Inputs:
    """Load the data, find the backbone. Raises UserError, within seconds, for what is missing."""
    settings = {**cfg["task"], "limit": cfg["limit"]}
    module, _, name = settings.pop("_target_").rpartition(".")
    task = getattr(importlib.import_module(module), name)(**settings)
    source = locate(**{key: cfg["backbone"][key] for key in ("name", "hub", "path")})
    return Inputs(task, task.load(), source)
