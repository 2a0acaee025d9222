"""Build the trackers that a configuration names."""

from __future__ import annotations

from pathlib import Path

from unipeft_run.config.schema import TrackingConfig
from unipeft_run.runs.folder import RunFolder, attempt_number
from unipeft_run.tracking import Tracker
from unipeft_run.tracking.console import Console
from unipeft_run.tracking.jsonl import Jsonl
from unipeft_run.tracking.tensorboard import TensorBoard
from unipeft_run.tracking.wandb import WandB


def build_trackers(options: TrackingConfig, folder: RunFolder, console: Console) -> list[Tracker]:
    """Build the tracker of train.jsonl, followed by the views of it."""
    name = dashboard_name(folder.path)
    views: list[Tracker] = [console]
    if options.wandb is not None:
        views.append(WandB(folder.path, name, **options.wandb.model_dump(), say=console.say))
    if options.tensorboard is not None:
        views.append(TensorBoard(options.tensorboard, name))
    return [Jsonl(folder.path / "train.jsonl", folder.check), *views]


def dashboard_name(folder: Path) -> str:
    """Name the run in `folder` on dashboards: task-method-run_id, and the attempt from the 2nd on.

    The method is part of it because two methods with the same scientific configuration share a
    run_id. The attempt keeps a run restarted with force=true apart from the one it replaced.
    """
    number = attempt_number(folder)
    return "-".join((*folder.absolute().parts[-3:], *([str(number)] if number > 1 else ())))
