"""A process that owns a run, is stopped in the middle of a write, and wakes up after losing it.

It acquires the lock as if on another host, sends `stopped` at some moment of the write, and stops
itself. When continued, it finishes the write and sends the outcome.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unipeft_run.deltas.delta_file import save_delta
from unipeft_run.runs import checkpoint, lock, writing
from unipeft_run.runs.folder import RunFolder
from unipeft_run.tracking.jsonl import Jsonl


def save(folder: RunFolder) -> None:
    path = folder.path / "checkpoints" / "last"
    content = checkpoint.Checkpoint({"w": torch.zeros(3)}, {"step": 666})
    checkpoint.save_checkpoint(path, content, keep_previous=True, check=folder.check)


WRITES: dict[str, Callable[[RunFolder], None]] = {
    "record": lambda f: Jsonl(f.path / "train.jsonl", f.check).log({"late": True}, 666),
    "trimming": lambda f: Jsonl(f.path / "train.jsonl", f.check).begin(0, 10),
    "status": lambda f: f.mark("failed", step=666),
    "metrics": lambda f: f.write_json("metrics.json", {"late": True}),
    "predictions": lambda f: f.write_predictions("test", [{"late": True}]),
    "delta": lambda f: save_delta(nn.Linear(2, 2), f.path, {}, f.check),
    "checkpoint": save,
    "clearing": lambda f: f.clear(),
}


def own_and_write(path: Path, write: str, moment: str, pipe: Connection) -> None:
    """Acquire the run in `path` and perform one of WRITES, with a stop at `moment`."""

    def stop() -> None:
        pipe.send("stopped")
        os.kill(os.getpid(), signal.SIGSTOP)

    lock._pid_scope = lambda: "0" * 8  # type: ignore[assignment]  # its PID counts as not local
    with lock.RunLock(path) as held:
        folder = RunFolder(path, held.check)
        if moment == "before":
            stop()
        elif moment == "writing":  # the temporary file or checkpoint is not complete
            once = stop_once(stop)
            checkpoint.save_file = stop_before(checkpoint.save_file, once)
            writing.sync = stop_before(writing.sync, once)  # type: ignore[assignment]
        else:  # all checks have passed, but the last step is still to come
            folder.guard = stop_after(held.check, CHECKS.get(write, 3), stop)
        try:
            WRITES[write](folder)
        except lock.LockLost as error:
            pipe.send(f"LockLost: {error}")
        else:
            pipe.send("written")


CHECKS = {"record": 2, "trimming": 2, "delta": 2, "checkpoint": 5}  # until the last step; others: 3


def stop_once(stop: Callable[[], None]) -> Callable[[], None]:
    """Wrap `stop` so that it does nothing from the second call on."""
    left = [stop]
    return lambda: left.pop()() if left else None


def stop_before(function: Callable[..., Any], stop: Callable[[], None]) -> Callable[..., Any]:
    """Wrap `function` so that it calls `stop` first."""

    def wrapped(*given: Any, **named: Any) -> Any:
        stop()
        return function(*given, **named)

    return wrapped


def stop_after(check: Callable[[], None], calls: int, stop: Callable[[], None]) -> Any:
    """Wrap `check` so that it stops the process after `calls` calls."""
    left = iter(range(1, 100))

    def guard() -> None:
        check()
        if next(left) == calls:
            stop()

    return guard
