"""The trackers that a configuration asks for."""

from __future__ import annotations

from pathlib import Path

from unipeft_run.config.schema import TrackingConfig
from unipeft_run.runs.folder import attempt
from unipeft_run.tracking import Tracker
from unipeft_run.tracking.jsonl import Jsonl
from unipeft_run.tracking.tensorboard import TensorBoard
from unipeft_run.tracking.wandb import WandB


def trackers(given: TrackingConfig, folder: Path, console: Tracker) -> list[Tracker]:
    """The truth first, then its views."""
    name = public_name(folder)
    views: list[Tracker] = [console]
    if given.wandb is not None:
        views.append(WandB(folder, name, **given.wandb.model_dump(exclude={"name"})))
    if given.tensorboard is not None:
        views.append(TensorBoard(given.tensorboard, name))
    return [Jsonl(folder / "train.jsonl"), *views]


def public_name(folder: Path) -> str:
    """A name for the run in `folder` outside of it: task-method-run_id.

    Two methods with the same science share a run_id, and so do not share this. A run that was
    begun afresh has its number at the end: what a dashboard has of the one before is not its own.
    """
    number = attempt(folder)
    return "-".join((*folder.absolute().parts[-3:], *([str(number)] if number > 1 else ())))
