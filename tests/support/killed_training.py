"""Trainings that are killed at a chosen moment, and started again as by a new process."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_training import make_trainer, noisy_loss_fn

from unipeft_run.runs.checkpoint import load_newest
from unipeft_run.training.checkpoint_store import LAST
from unipeft_run.training.trainer import Trainer

SELECTION = ("accuracy", "max")  # the best state is not always the last one


class Killed(BaseException):
    """Stands for SIGKILL."""


def after(calls: int, function: Callable[..., Any], act: Callable[[], None]) -> Callable[..., Any]:
    """Return `function`, which calls `act` first at call number `calls`."""
    count = 0

    def wrapped(*given: Any) -> Any:
        nonlocal count
        count += 1
        if count == calls:
            act()
        return function(*given)

    return wrapped


def kill() -> None:
    raise Killed


def kill_at(call: int, rename: Callable[..., Any], count: Iterator[int]) -> Callable[..., Any]:
    """Return `rename`, killed before number `call` of the renames of checkpoints in `count`."""

    def wrapped(path: Path, *given: Any) -> Any:
        if "checkpoints" in path.parts and next(count) == call:
            raise Killed
        return rename(path, *given)

    return wrapped


def new_process(folder: Path, **changed: Any) -> Trainer:
    """Make a trainer as a new process would: no random state of an earlier one is left."""
    made = make_trainer(folder, **{"loss_fn": noisy_loss_fn, "selection": SELECTION, **changed})
    if load_newest(folder / LAST) is not None:
        random.seed(), np.random.seed(), torch.seed()
    return made
