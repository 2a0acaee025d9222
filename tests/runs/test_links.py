"""No write or removal follows a symbolic link out of a run folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_fuzz import snapshot
from tiny_training import make_model
from torch import nn

from unipeft_run.deltas.delta_file import save_delta
from unipeft_run.errors import UserError
from unipeft_run.runs.checkpoint import Checkpoint, save_checkpoint
from unipeft_run.runs.folder import CONTENT, RunFolder
from unipeft_run.runs.lock import RunLock
from unipeft_run.tracking.jsonl import Jsonl

CONTENT_OF_CHECKPOINT = Checkpoint({"w": torch.ones(2)}, {"step": 1})
Write = Callable[[RunFolder], None]


def write_checkpoint(folder: RunFolder) -> None:
    path = folder.path / "checkpoints" / "last"
    save_checkpoint(path, CONTENT_OF_CHECKPOINT, keep_previous=True, check=folder.check)


def write_delta(folder: RunFolder) -> None:
    save_delta(make_model(), folder.path, {}, folder.check)


def append_record(folder: RunFolder) -> None:
    Jsonl(folder.path / "train.jsonl", folder.check).log({"x": 1.0}, 1)


def trim_records(folder: RunFolder) -> None:
    Jsonl(folder.path / "train.jsonl", folder.check).begin(0, 10)


WRITES: dict[str, Write] = {
    "config.yaml": lambda folder: folder.write_text("config.yaml", "seed: 1\n"),
    "status.json": lambda folder: folder.mark("running", step=1),
    "metrics.json": lambda folder: folder.write_json("metrics.json", {"a": 1}),
    "parameters.json": lambda folder: folder.write_json("parameters.json", {"a": 1}),
    "predictions": lambda folder: folder.write_predictions("test", [{"id": 1}]),
    "predictions/test.jsonl": lambda folder: folder.write_predictions("test", [{"id": 1}]),
    "train.jsonl": append_record,
    "delta.safetensors": write_delta,
    "delta.json": write_delta,
    "checkpoints": write_checkpoint,
    "checkpoints/last": write_checkpoint,
    "checkpoints/last.previous": write_checkpoint,
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Make a user's own files, one for every name that a run writes."""
    outside = tmp_path / "outside"
    for name in ("last", "last.previous", "predictions", "checkpoints"):
        (outside / name).mkdir(parents=True)
        (outside / name / "tensors.safetensors").write_text("precious")
        (outside / name / "test.jsonl").write_text('{"step": 9}\n')
    (outside / "file").write_text('{"step": 9}\n')
    return outside


def plant(folder: Path, name: str, outside: Path) -> Path:
    """Put a link to the user's file or folder where the run writes `name`."""
    link = folder / name
    link.parent.mkdir(parents=True, exist_ok=True)
    is_folder = Path(name).name in ("predictions", "checkpoints", "last", "last.previous")
    link.symlink_to(outside / Path(name).name if is_folder else outside / "file")
    return link


@pytest.mark.parametrize("name", WRITES)
def test_a_write_through_a_link_is_refused_and_names_it(
    tmp_path: Path, outside: Path, name: str
) -> None:
    link = plant(tmp_path / "run", name, outside)
    before = snapshot(outside)
    with pytest.raises(UserError, match=rf"{link} is a symbolic link; .*remove it"):
        WRITES[name](RunFolder(tmp_path / "run"))
    assert snapshot(outside) == before


def test_trimming_records_follows_no_link(tmp_path: Path, outside: Path) -> None:
    plant(tmp_path / "run", "train.jsonl", outside)
    before = snapshot(outside)
    with pytest.raises(UserError, match="is a symbolic link"):
        trim_records(RunFolder(tmp_path / "run"))
    assert snapshot(outside) == before


def test_a_dangling_link_creates_nothing(tmp_path: Path) -> None:
    for name in ("train.jsonl", "status.json"):
        folder = RunFolder(tmp_path / name / "run")
        (folder.path / name).symlink_to(tmp_path / "new")
        with pytest.raises(UserError, match="is a symbolic link"):
            WRITES[name](folder)
    assert not (tmp_path / "new").exists()


def test_the_status_of_a_failed_run_follows_no_link(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk status.json is overwritten in place."""

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    folder = RunFolder(tmp_path / "run")
    plant(folder.path, "status.json", outside)
    before = snapshot(outside)
    monkeypatch.setattr("unipeft_run.runs.writing.sync", full)
    with pytest.raises(UserError, match="is a symbolic link"):
        folder.mark("failed", error="x")
    assert snapshot(outside) == before


@pytest.mark.parametrize("name", [".config.yaml.part", ".status.json.part", ".last.part"])
def test_a_planted_temporary_name_is_not_used(tmp_path: Path, outside: Path, name: str) -> None:
    folder = RunFolder(tmp_path / "run")
    plant(folder.path, name, outside)
    (folder.path / "checkpoints").mkdir()
    plant(folder.path, f"checkpoints/{name}", outside)
    before = snapshot(outside)
    folder.write_text("config.yaml", "seed: 1\n")
    folder.mark("running", step=1)
    write_checkpoint(folder)
    assert snapshot(outside) == before
    assert (folder.path / "config.yaml").read_text() == "seed: 1\n"


def test_clearing_removes_links_but_not_their_targets(tmp_path: Path, outside: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.mark("failed", step=3)
    for name in CONTENT:
        if name not in ("status.json", "checkpoints"):
            (folder.path / name).symlink_to(outside)
    (folder.path / "checkpoints").mkdir()
    (folder.path / "checkpoints" / "last").symlink_to(outside)
    (folder.path / ".attempt").symlink_to(outside / "file")
    before = snapshot(outside)
    folder.clear()
    assert snapshot(outside) == before
    assert [path.name for path in folder.path.iterdir()] == [".attempt"]
    assert (folder.path / ".attempt").read_text() == "2\n"
    for name in ("predictions", "train.jsonl", "delta.json", "checkpoints"):
        WRITES[name](folder)
    assert snapshot(outside) == before


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path, outside: Path) -> None:
    run = tmp_path / "run"
    plant(run, ".lock", outside / "predictions")
    before = snapshot(outside)
    with pytest.raises(UserError, match=r"\.lock is a symbolic link"):
        RunLock(run).__enter__()
    assert snapshot(outside) == before


def test_taking_over_a_run_follows_no_link(tmp_path: Path, outside: Path) -> None:
    """The unfinished writes of the dead owner are removed, and its train.jsonl is copied."""
    run = tmp_path / "run"
    (run / ".lock").mkdir(parents=True)
    (run / ".lock" / "1-1-00000000-00000000@elsewhere").touch()
    os.utime(run / ".lock" / "1-1-00000000-00000000@elsewhere", (1, 1))
    (outside / "predictions" / ".test.jsonl.part").write_text("precious")
    plant(run, "predictions", outside)
    plant(run, "train.jsonl", outside)
    (run / ".x.0badc0de.part").symlink_to(outside / "last")
    before = snapshot(outside)
    with RunLock(run):
        assert snapshot(outside) == before
        assert not os.path.lexists(run / ".x.0badc0de.part")


def test_a_link_to_the_run_folder_itself_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    folder = RunFolder(tmp_path / "link")
    for write in WRITES.values():
        write(folder)
    assert (tmp_path / "real" / "predictions" / "test.jsonl").is_file()


@pytest.mark.parametrize("name", ["status.json", "predictions", "predictions/test.jsonl"])
def test_a_folder_in_place_of_a_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path)
    if name == "predictions":
        (tmp_path / name).write_text("a file")
    else:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{name} is (not )?a folder.*remove it"):
        WRITES[name](folder)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    folder = RunFolder(tmp_path)
    before = os.umask(umask)
    try:
        for write in WRITES.values():
            write(folder)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"delta.safetensors", "tensors.safetensors"} <= {path.name for path in files}
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {
        path.name: mode for path in files
    }


def test_a_delta_leaves_no_temporary_file(tmp_path: Path) -> None:
    save_delta(nn.Linear(2, 2), tmp_path, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["delta.json", "delta.safetensors"]
