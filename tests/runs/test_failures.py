"""Failures with an outside cause leave a clear state, one sentence, and complete files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from sampling import sampled
from tiny_training import make_trainer

from unipeft_run import run
from unipeft_run.config import compose, load, plan
from unipeft_run.data.tasks.build import build_task
from unipeft_run.errors import CannotLoad, UserError
from unipeft_run.runs import folder as run_folder
from unipeft_run.runs import writing
from unipeft_run.runs.checkpoint import Checkpoint, save_checkpoint
from unipeft_run.runs.failures import describe_failure, explain_failure
from unipeft_run.runs.folder import RunFolder, read_object
from unipeft_run.runs.lock import LockLost
from unipeft_run.runs.reader import find_runs
from unipeft_run.runs.writing import Check, replace_file
from unipeft_run.training.trainer import Trainer


def test_the_state_is_written_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.mark("running", step=7, total=20)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.mark("running", step=8)
    folder.mark("failed", error="the disk is full")
    status = folder.status()
    assert (status["state"], status["step"], status["total"]) == ("failed", 7, 20)
    assert status["error"] == "the disk is full"


@pytest.mark.parametrize("fits", sampled([(4,), (0,), (1,), (9,)], 4))
def test_a_disk_that_fills_up_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: int
) -> None:
    """The disk fills up after the checkpoints of `fits` updates; then there is room again."""
    monkeypatch.setattr(run_folder, "HEARTBEAT_SECONDS", 0.0)
    undisturbed = make_trainer(tmp_path / "undisturbed")
    expected = undisturbed.fit()
    written: list[Path] = []

    def full(path: Path, data: bytes, check: Check) -> None:
        written.append(path)
        if path.name == "status.json" and len(written) > fits:
            raise OSError(28, "No space left on device", str(path))
        replace_file(path, data, check)

    trainer = make_trainer(tmp_path / "run")
    with monkeypatch.context() as short:
        short.setattr(run_folder, "replace_file", full)
        with pytest.raises(OSError) as problem:
            trainer.fit()
        told = explain_failure(problem.value) or ""
        assert told.startswith(f"the disk is full ({tmp_path / 'run' / 'status.json'}); make room")
        trainer.folder.mark("failed", error=told)
    status = trainer.folder.status()
    assert status.get("state") == ("failed" if fits else None)
    assert status.get("step", 0) == fits
    again = make_trainer(tmp_path / "run")
    assert again.fit().best == expected.best
    for ours, theirs in zip(again.model.parameters(), undisturbed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert _untimed(tmp_path / "run") == _untimed(tmp_path / "undisturbed")


def _untimed(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [{k: row[k] for k in row if "second" not in k} for row in rows]


def test_a_damaged_best_state_is_never_replaced_by_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The damage is found at the end, when the best state is loaded."""
    finish = Trainer._finish

    def after_damage(trainer: Trainer) -> object:
        file = tmp_path / "checkpoints" / "best" / "tensors.safetensors"
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
        return finish(trainer)

    with monkeypatch.context() as damaging:
        damaging.setattr(Trainer, "_finish", after_damage)
        with pytest.raises(
            UserError, match=r"no undamaged checkpoint is left at .*best; start afresh"
        ):
            make_trainer(tmp_path).fit()
    assert "best/tensors.safetensors is damaged: its checksum differs" in caplog.text
    with pytest.raises(UserError, match="start afresh"):
        make_trainer(tmp_path).fit()
    RunFolder(tmp_path).clear()
    assert make_trainer(tmp_path).fit().best_step is not None


def test_only_a_refused_run_leaves_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that failed before training can be rerun, even if the rerun is refused."""
    problems = [
        *(UserError("no such form"), MemoryError()),
        *(CannotLoad("the download broke"), UserError("no such form")),
    ]

    class Failing:
        def __init__(self, *_: object) -> None:
            raise problems.pop()

    monkeypatch.setattr("unipeft_run.experiment.PreparedRun", Failing)
    planned = plan(compose(["task=sst2", "method=mam", "scale=mini", f"output={tmp_path}"]))
    inputs = run.Inputs(build_task(planned.config.task), {}, "")
    monkeypatch.setattr(run, "load_inputs", lambda config: inputs)
    with pytest.raises(UserError):
        run.run(planned)
    assert not planned.folder.exists()
    with pytest.raises(CannotLoad):
        run.run(planned)
    assert [(r.state, r.error) for r in find_runs([tmp_path])] == [("failed", "the download broke")]
    with pytest.raises(MemoryError):
        run.run(planned)
    (found,) = find_runs([tmp_path])
    assert (found.state, found.config["method"]) == ("failed", "mam")
    assert found.error.startswith("out of memory")
    assert load(planned.folder) == planned.config
    with pytest.raises(UserError):
        run.run(planned)
    (found,) = find_runs([tmp_path])
    assert (found.state, found.error) == ("failed", "no such form")


def test_a_bug_in_the_users_code_names_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "lab" / "gate.py"
    values: dict[str, Any] = {}
    exec(compile("def forward(u):\n    return int(str(u))\n", source, "exec"), values)
    with pytest.raises(ValueError) as problem:
        values["forward"]("x")
    described = "lab/gate.py, line 2, in forward: ValueError: invalid literal"
    assert describe_failure(problem.value).startswith(described)


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    """A run killed before its first write is not listed; the same command starts it."""
    (tmp_path / "outputs" / "sst2" / "mam" / "ab12cd34" / ".lock").mkdir(parents=True)
    assert list(find_runs([tmp_path])) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_an_unfinished_checkpoint_is_removed_from_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError(f"I/O error: {os.strerror(number)} (os error {number})")

    monkeypatch.setattr("unipeft_run.runs.checkpoint.save_file", full)
    with pytest.raises(OSError) as problem:
        save_checkpoint(tmp_path / "last", Checkpoint({}, {}), keep_previous=True)
    assert (explain_failure(problem.value) or "").startswith("the disk is full (")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[1]", b"null"])
def test_damaged_json_counts_as_missing(tmp_path: Path, damage: bytes) -> None:
    folder = RunFolder(tmp_path)
    for name in ("status.json", "metrics.json"):
        (tmp_path / name).write_bytes(damage)
    assert folder.status() == {}
    folder.mark("done", step=3)
    assert folder.status()["state"] == "done"
    assert read_object(tmp_path / "metrics.json") == {}


def test_a_folder_that_cannot_be_created_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(
        UserError, match=r"the run folder cannot be used: .*outputs.*; choose another place"
    ):
        RunFolder(tmp_path / "outputs" / "sst2" / "mam" / "ab12cd34")


def test_time_left_is_extrapolated_from_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([10.0, 10.0, 20.0, 20.0])
    monkeypatch.setattr("unipeft_run.runs.folder.time.monotonic", lambda: next(clock))
    folder = RunFolder(tmp_path)
    folder.mark("running", step=100, total=200)
    assert folder.status()["seconds_left"] is None
    folder.mark("running", step=110)
    assert folder.status()["seconds_left"] == 90.0


@pytest.mark.parametrize(
    ("problem", "part"),
    [
        (OSError(28, "No space left on device", "x"), "the disk is full (x)"),
        (PermissionError(13, "Permission denied", "x"), "Permission denied (x)"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (LockLost("x was taken over"), "x was taken over"),
        (RuntimeError("gloo/transport/pair.cc: Connection reset by peer"), "another process of"),
        (RuntimeError("NCCL error: remote process exited or a network error"), "another process"),
    ],
)
def test_an_outside_cause_is_one_sentence(problem: BaseException, part: str) -> None:
    text = explain_failure(problem) or ""
    assert text.startswith(part) and "\n" not in text


def test_other_failures_keep_their_class() -> None:
    assert explain_failure(KeyError("x")) is None
    assert describe_failure(KeyError("x")) == "KeyError: 'x'"
