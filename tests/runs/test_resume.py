"""A training that is stopped anywhere and resumed equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch
from killed_training import Killed, after, kill, kill_at, new_process
from sampling import sampled
from tiny_training import evaluate, noisy_loss_fn

from unipeft_run.errors import Interrupted
from unipeft_run.runs.checkpoint import (
    DamagedCheckpoint,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)
from unipeft_run.runs.folder import RunFolder
from unipeft_run.tracking import Tracker
from unipeft_run.tracking.jsonl import Jsonl
from unipeft_run.training.checkpoint_store import BEST, LAST
from unipeft_run.training.compute import plan
from unipeft_run.training.trainer import FitResult, Trainer

WALL = ("seconds", "per_second")


def send_sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def everything(folder: Path, trainer: Trainer, result: FitResult) -> dict[str, Any]:
    """Return everything that a run leaves, except wall times."""
    lines = (folder / "train.jsonl").read_text().splitlines()
    last = load_checkpoint(folder / LAST)
    state = json.loads(json.dumps(last.state))
    for timed in ("step_seconds", "window", "total"):
        state["training"]["progress"].pop(timed)
    state["training"].pop("wall_seconds")
    return {
        "model": {name: p.tolist() for name, p in trainer.model.named_parameters()},
        "records": [
            {key: value for key, value in json.loads(line).items() if not key.endswith(WALL)}
            for line in lines
        ],
        "last": {name: tensor.tolist() for name, tensor in last.tensors.items()},
        "state": state,
        "result": (result.step, result.best_step, result.best, result.metrics["train/loss"]),
    }


@pytest.fixture(scope="module", autouse=True)
def same_products() -> Iterator[None]:
    """Leave out the timing that chooses products: a run killed early would choose again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "is_onednn_faster", lambda: False)
        yield


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    trainer = new_process(folder)
    return everything(folder, trainer, trainer.fit())


@pytest.mark.parametrize(
    ("batches", "checkpoint_every"),
    sampled(product([1, 2, 13, 14, 15, 25, 40], [None, 1, 4]), 4),
)
def test_a_run_killed_in_training_resumes(
    tmp_path: Path, uninterrupted: dict[str, Any], batches: int, checkpoint_every: int | None
) -> None:
    loss_fn = after(batches, noisy_loss_fn, kill)
    with pytest.raises(Killed):
        new_process(tmp_path, loss_fn=loss_fn, checkpoint_every=checkpoint_every).fit()
    trainer = new_process(tmp_path, checkpoint_every=checkpoint_every)
    assert everything(tmp_path, trainer, trainer.fit()) == uninterrupted


@pytest.mark.parametrize("evaluations", [1, 2, 4])
def test_a_run_killed_in_evaluation_resumes(
    tmp_path: Path, uninterrupted: dict[str, Any], evaluations: int
) -> None:
    with pytest.raises(Killed):
        new_process(tmp_path, evaluate=after(evaluations, evaluate, kill)).fit()
    trainer = new_process(tmp_path)
    assert everything(tmp_path, trainer, trainer.fit()) == uninterrupted


@pytest.mark.parametrize("writes", sampled(((writes,) for writes in range(1, 9)), 3))
def test_a_run_killed_before_a_checkpoint_is_renamed_resumes(
    tmp_path: Path,
    uninterrupted: dict[str, Any],
    writes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = itertools.count(1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", kill_at(writes, Path.rename, count))
        patch.setattr(Path, "replace", kill_at(writes, Path.replace, count))
        with pytest.raises(Killed):
            new_process(tmp_path).fit()
    trainer = new_process(tmp_path)
    assert everything(tmp_path, trainer, trainer.fit()) == uninterrupted


def test_a_run_killed_repeatedly_resumes(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    for batches in (30, 9, 3):
        with pytest.raises(Killed):
            new_process(
                tmp_path, loss_fn=after(batches, noisy_loss_fn, kill), checkpoint_every=3
            ).fit()
    trainer = new_process(tmp_path)
    assert everything(tmp_path, trainer, trainer.fit()) == uninterrupted


def test_a_finished_training_is_not_repeated(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    new_process(tmp_path).fit()
    trainer = new_process(tmp_path, loss_fn=after(1, noisy_loss_fn, kill))
    assert everything(tmp_path, trainer, trainer.fit()) == uninterrupted


def test_early_stopping_keeps_its_count(tmp_path: Path) -> None:
    values = [0.5, 0.4, 0.3, 0.2]

    def run(folder: Path, **changed: Any) -> FitResult:
        script = iter(values if not (folder / "checkpoints").exists() else values[1:])
        given = {"evaluate": lambda *_: {"accuracy": next(script)}, "early_stopping": 2}
        return new_process(folder, **{**given, **changed}).fit()

    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", loss_fn=after(20, noisy_loss_fn, kill))
    assert run(tmp_path / "killed").step == whole.step == 18


@pytest.mark.parametrize("batches", [3, 12, 40])
def test_sigterm_finishes_the_update_and_checkpoints(
    tmp_path: Path, uninterrupted: dict[str, Any], batches: int
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped by SIGTERM") as stop:
        new_process(tmp_path, loss_fn=after(batches, noisy_loss_fn, send_sigterm)).fit()
    assert stop.value.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler
    status = RunFolder(tmp_path).status()
    assert (status["state"], status["error"]) == ("interrupted", "stopped by SIGTERM")
    last = load_newest(tmp_path / LAST)
    assert last is not None
    saved = last.state["training"]["progress"]["step"]
    assert status["step"] == saved == (batches + 1) // 2  # no update is lost
    trainer = new_process(tmp_path)
    assert everything(tmp_path, trainer, trainer.fit()) == uninterrupted


def test_sigterm_ends_an_evaluation_at_once(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    never = after(1, evaluate, kill)  # the rest of this evaluation

    def long_evaluation(*given: Any) -> Any:
        send_sigterm()
        return never(*given)

    with pytest.raises(Interrupted):
        new_process(tmp_path, evaluate=long_evaluation).fit()
    assert RunFolder(tmp_path).status()["step"] == 6
    trainer = new_process(tmp_path)
    assert everything(tmp_path, trainer, trainer.fit()) == uninterrupted


def test_sigterm_after_the_last_update_stops_the_run(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    class Signals(Tracker):
        def log(self, record: Any, step: int) -> None:
            if step == 20 and "validation/loss" in record:
                send_sigterm()

    trackers = [Jsonl(tmp_path / "train.jsonl"), Signals()]
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        new_process(tmp_path, trackers=trackers).fit()
    status = RunFolder(tmp_path).status()
    assert (status["state"], status["step"]) == ("interrupted", 20)
    trainer = new_process(tmp_path)
    assert everything(tmp_path, trainer, trainer.fit()) == uninterrupted


def test_a_repeated_evaluation_is_recorded_once(
    tmp_path: Path, uninterrupted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        new_process(tmp_path, evaluate=after(2, evaluate, send_sigterm)).fit()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", after(1, Trainer._save, kill))
        with pytest.raises(Killed):
            new_process(tmp_path).fit()
    trainer = new_process(tmp_path)
    assert everything(tmp_path, trainer, trainer.fit()) == uninterrupted


def test_a_best_state_newer_than_the_checkpoint_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was killed between the two, and its updates are not reproduced exactly."""

    def scripted(*values: float) -> Callable[..., Any]:
        script = iter(values)
        return lambda *_: {"accuracy": next(script)}

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", after(2, Trainer._save, kill))
        with pytest.raises(Killed):
            new_process(tmp_path, evaluate=scripted(0.5, 0.7)).fit()
    stored = load_checkpoint(tmp_path / BEST).tensors
    trainer = new_process(tmp_path, evaluate=scripted(0.4, 0.4, 0.4))
    result = trainer.fit()
    assert (result.best_step, result.best) == (12, {"accuracy": 0.7})
    found = dict(trainer.model.named_parameters())
    assert all(torch.equal(found[name], tensor) for name, tensor in stored.items())


def test_a_best_state_older_than_the_checkpoint_is_refused(tmp_path: Path) -> None:
    script = iter((0.5, 0.7))
    with pytest.raises(Killed):
        loss_fn = after(30, noisy_loss_fn, kill)
        new_process(tmp_path, evaluate=lambda *_: {"accuracy": next(script)}, loss_fn=loss_fn).fit()
    best = load_checkpoint(tmp_path / BEST)
    older = replace(best, state={**best.state, "step": 6})
    save_checkpoint(tmp_path / BEST, older, keep_previous=False)
    with pytest.raises(
        DamagedCheckpoint, match=r"best holds step 6, but the best evaluation was at step 12; start"
    ):
        new_process(tmp_path).fit()


@pytest.mark.slow
def test_sigterm_to_a_process(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    command = [sys.executable, tiny_training.__file__, str(tmp_path)]
    paths = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for _ in range(15):
            assert process.stdout.readline() == "batch\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Interrupted: stopped by SIGTERM" in errors
    assert RunFolder(tmp_path).status()["step"] >= 8
    trainer = new_process(tmp_path)
    result = trainer.fit()
    assert result.step == uninterrupted["result"][0]


def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(
    tmp_path: Path, uninterrupted: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Killed):
        new_process(tmp_path, loss_fn=after(30, noisy_loss_fn, kill)).fit()
    tensors = tmp_path / LAST / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    trainer = new_process(tmp_path)
    assert everything(tmp_path, trainer, trainer.fit()) == uninterrupted
    assert f"{tensors} is damaged" in caplog.text
