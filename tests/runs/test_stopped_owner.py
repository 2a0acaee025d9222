"""A suspended process that lost its run writes nothing when it continues."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from sampling import sampled
from stopped_owner import WRITES, own_and_write
from tiny_fuzz import snapshot
from torch import nn

from unipeft_run.deltas.delta_file import save_delta
from unipeft_run.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from unipeft_run.runs.folder import RunFolder
from unipeft_run.runs.lock import RunLock
from unipeft_run.tracking.jsonl import Jsonl


def write_everything(folder: RunFolder, step: int) -> None:
    """Write every kind of file that a run writes."""
    folder.write_text("config.yaml", "seed: 42\n")
    folder.mark("running", step=step)
    folder.write_json("metrics.json", {"step": step})
    folder.write_predictions("test", [{"id": step}])
    Jsonl(folder.path / "train.jsonl", folder.check).log({"x": 1.0}, step)
    save_delta(nn.Linear(2, 2), folder.path, {}, folder.check)
    for number in (step, step + 1):
        content = Checkpoint({"w": torch.ones(3)}, {"step": number})
        path = folder.path / "checkpoints" / "last"
        save_checkpoint(path, content, keep_previous=True, check=folder.check)


@contextmanager
def stopped(run: Path, write: str, moment: str) -> Iterator[tuple[BaseProcess, Connection]]:
    """Start a process that owns `run` and is suspended in the middle of a write."""
    forked = multiprocessing.get_context("fork")  # torch is imported already
    ours, theirs = forked.Pipe()
    process = forked.Process(target=own_and_write, args=(run, write, moment, theirs), daemon=True)
    process.start()
    try:
        assert ours.poll(60) and ours.recv() == "stopped"
        await_stop(process)
        yield process, ours
    finally:
        process.kill()


def await_stop(process: BaseProcess) -> None:
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)


CASES = [(write, moment) for write in WRITES for moment in ("before", "writing")]
CASES = [case for case in CASES if case not in (("record", "writing"), ("clearing", "writing"))]
CASES += [(write, "checked") for write in WRITES if write != "clearing"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(("write", "moment"), sampled(CASES, 3))
def test_nothing_is_written_after_the_run_is_lost(tmp_path: Path, write: str, moment: str) -> None:
    run = tmp_path / "run"
    write_everything(RunFolder(run), 1)
    with stopped(run, write, moment) as (process, pipe):
        (held,) = (run / ".lock").iterdir()
        os.utime(held, (1, 1))  # as after minutes without a heartbeat
        with RunLock(run) as lock:
            folder = RunFolder(run, lock.check)
            write_everything(folder, 7)
            before = snapshot(run)
            os.kill(process.pid or 0, signal.SIGCONT)
            process.join(60)
            assert process.exitcode == 0
            assert snapshot(run) == before
            assert load_checkpoint(run / "checkpoints" / "last").state == {"step": 8}
            write_everything(folder, 9)  # and the successor is not disturbed
        if (write, moment) == ("record", "checked"):  # went to the file that the successor replaced
            assert pipe.recv() == "written"
        else:
            lost = f"LockLost: {run} was taken over by another process; this one stops"
            assert pipe.recv() == lost
    assert list(run.rglob("*.part")) == []
