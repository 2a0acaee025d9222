"""Output that nobody reads: broken pipes, vanished terminals and closed streams."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from unipeft_run.commands.pipes import _PipeOrNull
from unipeft_run.runs.outcome import make_outcome
from unipeft_run.sweeps.engines.announcer import Announcer
from unipeft_run.sweeps.engines.worker import RoundLog, Worker

CLOSED = """
import subprocess, sys
from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.training.distributed.environment import silence_progress_bars
ignore_broken_pipes()
silence_progress_bars()
print("read by nobody", file=sys.stderr)
print("read by nobody", file=sys.stdout)
assert not sys.stdout.isatty()
check = "import sys; assert sys.stderr and sys.stdout"
sys.exit(subprocess.run([sys.executable, "-c", check]).returncode)
"""


def test_closed_streams_are_null_also_for_child_processes(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(CLOSED)
    words = ["sh", "-c", '"$0" "$1" >&- 2>&-', sys.executable, str(tmp_path / "script.py")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run(words, env=env).returncode == 0


def test_a_terminal_that_vanishes_is_like_a_broken_pipe() -> None:
    master, slave = os.openpty()
    with _PipeOrNull(slave, "w") as stream:
        assert stream.write(b"read\n") == 5
        os.close(master)
        assert stream.write(b"read by nobody\n") == 15
        assert not stream.isatty()


def test_a_full_disk_is_an_error() -> None:
    with _PipeOrNull("/dev/full", "w") as stream, pytest.raises(OSError, match="No space"):
        stream.write(b"lost")


def test_a_cell_runs_although_nobody_reads_its_announcement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True)
    for name in ("stderr", "__stderr__"):
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(HydraConfig, "get", lambda: SimpleNamespace(job=SimpleNamespace(num=0)))
    announcer = Announcer(["seed=1"], [0], (), 1, tmp_path)
    worker = Worker(lambda _: make_outcome("done"), RoundLog(tmp_path, 1), announcer=announcer)
    with stream:
        assert worker(OmegaConf.create())["state"] == "done"
