"""What stops a run from outside: a clear state, one sentence, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from unipeft_run import run_folder
from unipeft_run.checkpoint import Checkpoint, save_checkpoint
from unipeft_run.errors import UserError
from unipeft_run.failures import described, sentence
from unipeft_run.lock import LockLost
from unipeft_run.run_folder import RunFolder, read_object


def test_a_full_disk_still_lets_the_state_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.mark("running", step=7, total=20)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.mark("running", step=8)
    folder.mark("failed", error="the disk is full")
    status = folder.status()
    assert (status["state"], status["step"], status["total"]) == ("failed", 7, 20)
    assert status["error"] == "the disk is full"


def test_a_full_disk_makes_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("unipeft_run.checkpoint.save_file", full)
    with pytest.raises(OSError) as problem:
        save_checkpoint(tmp_path / "last", Checkpoint({}, {}), keep_previous=True)
    assert (sentence(problem.value) or "").startswith("the disk is full (")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[1]", b"null"])
def test_damaged_json_is_as_if_not_there(tmp_path: Path, damage: bytes) -> None:
    folder = RunFolder(tmp_path)
    for name in ("status.json", "metrics.json"):
        (tmp_path / name).write_bytes(damage)
    assert folder.status() == {}
    folder.mark("done", step=3)
    assert folder.status()["state"] == "done"
    assert read_object(tmp_path / "metrics.json") == {}


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(UserError, match=r"the run folder cannot be used: .*outputs.*; see output="):
        RunFolder(tmp_path / "outputs" / "sst2" / "mam" / "ab12cd34")


def test_nothing_is_written_where_another_process_has_the_folder(tmp_path: Path) -> None:
    def not_ours() -> None:
        raise LockLost("taken over")

    folder = RunFolder(tmp_path, not_ours)
    with pytest.raises(LockLost):
        folder.mark("done", step=1)
    assert list(tmp_path.iterdir()) == []


def test_time_left_is_by_the_pace_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([10.0, 10.0, 20.0, 20.0])
    monkeypatch.setattr("unipeft_run.run_folder.time.monotonic", lambda: next(clock))
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
    ],
)
def test_what_comes_from_outside_is_one_sentence(problem: BaseException, part: str) -> None:
    text = sentence(problem) or ""
    assert text.startswith(part) and "\n" not in text


def test_other_failures_keep_their_name() -> None:
    assert sentence(KeyError("x")) is None
    assert described(KeyError("x")) == "KeyError: 'x'"
