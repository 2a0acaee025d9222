"""Weights & Biases online, against a server on loopback that stores everything or fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_wandb import FakeWandB
from made_runs import make_sst2_run
from offline_wandb import stored_records
from tiny_training import evaluate, make_trainer
from torch import nn

from unipeft_run.commands.runs import main
from unipeft_run.runs.folder import RunFolder
from unipeft_run.tracking import Record, Trackers
from unipeft_run.tracking.build import dashboard_name
from unipeft_run.tracking.jsonl import Jsonl, read_train_records
from unipeft_run.tracking.wandb import WandB

# raised in wandb's own threads when its service is stopped while a run is still uploading
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
CONFIG = {
    "task": {"name": "sst2"},
    "method": "mam",
    "scale": "mini",
    "seed": 7,
    "ffn": {"form": {"_target_": "unipeft_run.deltas.forms.bottleneck.Bottleneck"}},
}
NAME = "sst2-mam-ab12cd34"
FAILURES: dict[str, dict[str, int | float | str]] = {
    "errors": {"file_stream": 500},
    "refusals": {"file_stream": 403},
    "cut connections": {"file_stream": "drop"},
    "no uploads": {"upload": 503},
    "everything": {"*": 502},
}
SLOW = ("cut connections", "no uploads")  # handled like server errors
KINDS = [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in FAILURES]


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up on a failing server sooner."""
    monkeypatch.setattr("unipeft_run.tracking.wandb.CONNECTING", 4)
    monkeypatch.setattr("unipeft_run.tracking.wandb.UPLOADING", 2)
    monkeypatch.setattr("unipeft_run.tracking.wandb.FINISHING", 12)


def track(
    folder: Path, first: int, last: int, state: str, *, cut: bool = False, name: str = NAME
) -> WandB:
    """Track the updates `first` to `last`, with an evaluation after every second one.

    `cut`: stop before the last evaluation.
    """
    tracker = WandB(folder, name, mode="auto")
    both = Trackers([Jsonl(folder / "train.jsonl"), tracker])
    both.start(CONFIG)
    both.begin(first - 1, 8)
    for step in range(first, last + 1):
        both.log({"train/loss": 1 / step, "best_step": None}, step)
        if step % 2 == 0 and not (cut and step == last):
            both.log({"validation/loss": 2 / step}, step)
    both.finish({"test/accuracy": 90.25} if state == "done" else {}, state)
    return tracker


KEYS = ("step", "train/loss", "validation/loss")


def recorded(folder: Path) -> list[tuple[Any, ...]]:
    """Return the records in train.jsonl."""
    return [tuple(map(row.get, KEYS)) for row in read_train_records(folder / "train.jsonl")]


def test_a_run_is_sent_during_training(server: FakeWandB, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_predictions("test", [{"id": 1, "prediction": "ja"}])
    folder.write_json("parameters.json", {"sites": [{"site": "encoder.0", "trained": 12}]})
    assert track(tmp_path, 1, 6, "done").problem is None
    (run,) = server.runs.values()
    assert run.name == NAME
    assert (run.given["groupName"], run.given["jobType"]) == ("sst2-mini", "mam")
    assert "ffn.form=Bottleneck" in run.given["tags"]
    assert run.config["seed"] == 7 and run.config["axes"]["ffn"]["form"] == "Bottleneck"
    assert run.history(*KEYS) == recorded(tmp_path)
    assert (run.summary["test/accuracy"], run.summary["state"]) == (90.25, "done")
    tables = {key for key, value in run.summary.items() if isinstance(value, dict)} - {"_wandb"}
    assert tables == {"predictions/test", "parameters"}
    assert json.loads(run.files[run.summary["parameters"]["path"]])["data"] == [["encoder.0", 12]]
    assert run.exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [3, 4])
def test_a_resumed_run_continues_the_same_wandb_run(
    server: FakeWandB, tmp_path: Path, stopped: int
) -> None:
    """If it was stopped during an evaluation, the server has the row of that step alone; if after
    the last checkpoint, the server has more rows than the run resumes from."""
    track(tmp_path, 1, 4, "failed", cut=True)
    (run,) = server.runs.values()
    assert (run.exit_code, len(run.rows)) == (1, 5)
    assert track(tmp_path, stopped, 8, "done").problem is None
    assert list(server.runs) == [NAME]
    assert run.exit_code == 0
    losses = [row for row in run.history(*KEYS) if row[1] is not None]
    assert losses == [(step, 1 / step, None) for step in range(1, 9)]
    evaluated = [row for row in run.history(*KEYS) if row[2] is not None]
    assert evaluated == [(step, None, 2 / step) for step in (2, 4, 6, 8)]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    path = make_sst2_run(tmp_path / "outputs")
    folder = RunFolder(path)
    lines = [{"step": step, "train/loss": 1 / step} for step in range(1, 6)]
    lines.insert(3, {"step": 3, "validation/loss": 0.5})
    folder.write_text("train.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    folder.write_json("parameters.json", {"sites": [{"site": "encoder.0", "trained": 12}]})
    folder.write_predictions("test", [{"id": 1, "prediction": "ja"}])
    return path


def test_pushing_twice_stores_a_run_once(
    server: FakeWandB, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "outputs"]) == 0
    (run,) = server.runs.values()
    once = run.content()
    assert run.history(*KEYS) == recorded(finished)
    assert once["summary"]["test/accuracy"] == 90.25 and len(once["media"]) == 2
    assert main(["push", "outputs", "--again"]) == 0
    assert len(server.runs) == 1 and run.content() == once
    assert main(["push", "outputs"]) == 0
    assert "sent before" in capsys.readouterr().out


@pytest.mark.parametrize("there", [0, 3, 4])
def test_pushing_after_a_crash_completes_the_run(
    server: FakeWandB, finished: Path, there: int
) -> None:
    """The process died when the server had only the first rows."""
    assert main(["push", "outputs"]) == 0
    (run,) = server.runs.values()
    whole = run.content()
    run.rows[there:] = []
    run.summary = {key: run.summary[key] for key in run.summary if "loss" in key}
    run.files, run.exit_code = {}, None
    assert main(["push", "outputs", "--again"]) == 0
    assert run.content() == whole
    assert run.exit_code == 0


def test_a_restarted_run_is_another_wandb_run(server: FakeWandB, finished: Path) -> None:
    """Even if it is resumed or pushed."""
    name, config = dashboard_name(finished), (finished / "config.yaml").read_text()
    assert main(["push", "outputs"]) == 0
    before = server.runs[name].content()
    RunFolder(finished).clear()
    RunFolder(finished).write_text("config.yaml", config)
    track(finished, 1, 2, "failed", name=dashboard_name(finished))
    assert track(finished, 3, 8, "done", name=dashboard_name(finished)).problem is None
    assert server.runs[f"{name}-2"].history(*KEYS) == recorded(finished)
    assert main(["push", "outputs"]) == 0
    assert server.runs[f"{name}-2"].history(*KEYS) == recorded(finished)
    assert sorted(server.runs) == [name, f"{name}-2"] and server.runs[name].content() == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_incomplete_upload_counts_as_failed(
    server: FakeWandB,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    server.fails = FAILURES[kind]
    with monkeypatch.context() as hurried:
        hurry(hurried)
        assert main(["push", "outputs"]) == 1
    assert "failed: sst2/mam/" in capsys.readouterr().out
    server.fails = {}
    assert main(["push", "outputs"]) == 0
    (run,) = server.runs.values()
    assert run.history(*KEYS) == recorded(finished)
    assert (run.summary["state"], run.exit_code) == ("done", 0)


class Timed(WandB):
    """Adds up the seconds that training waits."""

    held = 0.0

    def log(self, record: Record, step: int) -> None:
        began = time.perf_counter()
        super().log(record, step)
        self.held += time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "slow"])
def test_a_server_that_fails_midway_does_not_change_training(
    server: FakeWandB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def fails_then(model: nn.Module, limit: int | None) -> Mapping[str, float]:
        server.fails = FAILURES.get(kind, {"*": 2.5})
        return evaluate(model, limit)

    hurry(monkeypatch)
    quiet = make_trainer(tmp_path / "quiet").fit()
    tracker = Timed(tmp_path / "run", "ab12cd34", mode="online")
    trackers = [Jsonl(tmp_path / "run" / "train.jsonl"), tracker]
    trainer = make_trainer(tmp_path / "run", trackers=trackers, evaluate=fails_then)
    tracker.start(CONFIG)
    result = trainer.fit()
    began = time.monotonic()
    tracker.finish({}, "done")
    assert tracker.held < 0.2, "records are only queued"
    assert time.monotonic() - began < 20, "the limits set by hurry, on a busy machine"
    assert result.best == quiet.best and result.step == quiet.step
    assert tracker.problem or kind == "slow"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["UpsertBucket", "RunResumeStatus"])
def test_a_run_that_the_server_cannot_open_is_offline(
    server: FakeWandB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    hurry(monkeypatch)
    server.fails = {kind: 500}
    problem = track(tmp_path, 1, 4, "done").problem or ""
    assert problem.startswith("Weights & Biases is offline for this run: ")
    kinds = [record.WhichOneof("record_type") for record in stored_records(tmp_path)]
    assert kinds.count("history") == len(recorded(tmp_path))


SCRIPT = """
import sys, time
from pathlib import Path
from unipeft_run.tracking import wandb as ours
ours.CONNECTING, ours.UPLOADING, ours.FINISHING = 4, 3, 12
tracker = ours.WandB(Path(sys.argv[1]), "x", mode="auto")
tracker.start({"task": "sst2"})
for step in (1, 2, 3):
    tracker.log({"loss": 1 / step}, step)
time.sleep(float(sys.argv[2]))
tracker.finish({}, "done")
"""


@pytest.mark.slow
def test_the_process_exits_when_the_upload_fails(server: FakeWandB, tmp_path: Path) -> None:
    server.fails = {"file_stream": 500}
    began = time.monotonic()
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "0"]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=90)
    assert done.returncode == 0 and done.stdout == "", done
    assert "Weights & Biases is off for this run" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert time.monotonic() - began < 45


@pytest.mark.slow
def test_rows_sent_before_a_kill_are_not_sent_again(server: FakeWandB, tmp_path: Path) -> None:
    """wandb uploads every 15 seconds."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "300"]
    process = subprocess.Popen(command, env=dict(os.environ))
    deadline = time.monotonic() + 120
    while not (server.runs.get("x") and server.runs["x"].rows) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.kill()
    process.wait()
    assert len(server.runs["x"].rows) == 2 and server.runs["x"].exit_code is None
    subprocess.run([*command[:-1], "0"], check=True, timeout=90)
    assert server.runs["x"].history("step", "loss") == [(1, 1), (2, 1 / 2), (3, 1 / 3)]
    assert server.runs["x"].exit_code == 0
