"""Weights & Biases at its limits: slow servers, a dead service process, odd options, links."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fake_wandb import FakeWandB
from offline_wandb import stored_records, track

from unipeft_run.tracking import wandb as tracking_wandb
from unipeft_run.tracking import wandb_server
from unipeft_run.tracking.wandb import WandB

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def test_an_answer_that_drips_ends_at_its_deadline(
    server: FakeWandB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte arrives within urlopen's own timeout."""
    monkeypatch.setattr(wandb_server, "PATIENCE", 1.5)
    server.fails = {"*": "drip"}
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="did not answer within"):
        wandb_server.count_rows("a", "b", "c")
    assert time.monotonic() - began < 5


def test_a_server_that_always_drips_leaves_the_run_offline(
    server: FakeWandB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_server, "PATIENCE", 1)
    server.fails = {"*": "drip"}
    track(tmp_path, mode="auto")
    kinds = [record.WhichOneof("record_type") for record in stored_records(tmp_path)]
    assert kinds.count("history") == 4


@pytest.mark.slow
def test_finishing_has_one_total_deadline(
    server: FakeWandB,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server starts to drip once the run is open; W&B itself would wait for 20 s."""
    monkeypatch.setattr(tracking_wandb, "FINISHING", 3)
    tracker = WandB(tmp_path, "ab12cd34", mode="online")
    tracker.start({"task": "sst2"})
    tracker.begin(0, 1)
    wait_until(lambda: "ab12cd34" in server.runs)
    server.fails = {"*": "drip"}
    tracker.log({"train/loss": 0.5}, 1)
    began = time.monotonic()
    tracker.finish({}, "done")
    assert 2.5 < time.monotonic() - began < 6
    message = "Weights & Biases did not answer for 3 seconds; train.jsonl has every record"
    assert tracker.problem == message
    time.sleep(0.5)
    ours = [record for record in caplog.records if record.name == "unipeft_run.tracking.wandb"]
    assert [record.getMessage() for record in ours] == [message]


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from unipeft_run.tracking import wandb as ours
ours.FINISHING = 3
how, when, mode = sys.argv[2:]

def hit_service():
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(os.getpid()) and b"wandb" in (entry / "cmdline").read_bytes():
                print(entry.name, flush=True)
                os.kill(int(entry.name), getattr(signal, how))
        except OSError:
            continue

tracker = ours.WandB(Path(sys.argv[1]), "x", mode=mode)
tracker.start({"task": "sst2"})
tracker.log({"loss": 1.0}, 1)
while not list(Path(sys.argv[1]).glob("wandb/*run-*/*.wandb")):
    time.sleep(0.1)
time.sleep(0.5)
if when == "during":
    hit_service()
tracker.log({"loss": 0.5}, 2)
tracker.finish({}, "done")
if when == "after":
    hit_service()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the service in /proc")
@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize(
    ("how", "when", "message"),
    [
        ("SIGKILL", "during", "Weights & Biases is off for this run: "),
        ("SIGKILL", "after", ""),
        ("SIGSTOP", "during", "Weights & Biases did not answer for 3 seconds"),
    ],
)
def test_a_process_ends_normally_without_its_wandb_service(
    server: FakeWandB, tmp_path: Path, how: str, when: str, message: str, mode: str
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), how, when, mode]
    began = time.monotonic()
    out, err = tmp_path / "out", tmp_path / "err"  # files: a stopped service would keep pipes open
    with out.open("w") as stdout, err.open("w") as stderr:
        subprocess.run(command, stdout=stdout, stderr=stderr, timeout=90, check=True)
    assert time.monotonic() - began < 30
    if how == "SIGSTOP":
        os.kill(int(out.read_text()), signal.SIGKILL)
    printed = err.read_text()
    assert printed.startswith(message) and len(printed.splitlines()) == bool(message), printed


def wait_until(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("given", "tags"), [("foo", ["foo"]), (["foo", "bar"], ["foo", "bar"]), ((), []), (None, [])]
)
def test_a_single_word_is_one_tag(tmp_path: Path, given: Any, tags: list[str]) -> None:
    tracker = WandB(tmp_path, "ab12cd34", mode="offline", tags=given, name="my run")
    tracker.start({"task": "sst2"})
    tracker.finish({}, "done")
    (run,) = (r.run for r in stored_records(tmp_path) if r.WhichOneof("record_type") == "run")
    assert list(run.tags) == tags
    assert (run.run_id, run.display_name) == ("ab12cd34", "my run")


def test_a_relative_folder_is_that_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service keeps the working directory in which it was started."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        track(Path("run"), mode="offline")
        assert stored_records(tmp_path / name / "run"), name


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir(), outside.mkdir()
    (run / "wandb").symlink_to(outside)
    tracker = WandB(run, "ab12cd34", mode="offline")
    tracker.start({})
    tracker.finish({}, "done")
    assert "wandb in the run folder is a symbolic link" in str(tracker.problem)
    assert not list(outside.iterdir())
