"""The files of a run folder: written completely or not at all, cleared only if ours."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from made_runs import make_run
from tiny_fuzz import snapshot

from unipeft_run.errors import UserError
from unipeft_run.runs import folder as run_folder
from unipeft_run.runs import writing
from unipeft_run.runs.checkpoint import Checkpoint, save_checkpoint
from unipeft_run.runs.folder import CONTENT, RunFolder, attempt_number, is_run_folder
from unipeft_run.runs.lock import LockLost

RECORDED = Path(__file__).parents[1] / "recorded_runs" / "runs"


def test_status(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "xsum" / "mam" / "ab12cd34")
    assert folder.status() == {}
    folder.mark("running", step=7)
    started = folder.status()["started"]
    assert datetime.fromisoformat(started) <= datetime.now(UTC)
    folder.write_json("status.json", folder.status() | {"started": "2026-01-02T03:04:05+00:00"})
    folder.mark("failed", error="out of memory")
    status = RunFolder(folder.path).status()
    assert (status["state"], status["step"], status["error"]) == ("failed", 7, "out of memory")
    assert status["heartbeat"].endswith("+00:00")
    assert status["started"].startswith("2026-01-02"), "a resumed run keeps its start"


def test_the_heartbeat_is_written_every_few_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.mark("running", step=1)
    folder.beat(2)
    assert folder.status()["step"] == 1
    monkeypatch.setattr(run_folder, "HEARTBEAT_SECONDS", 0.0)
    folder.beat(3)
    assert folder.status()["step"] == 3


def test_metrics_and_predictions(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("metrics.json", {"test/loss": float("nan"), "test/bleu": 1 / 3, "ids": (1,)})
    assert folder.read_json("metrics.json") == {"test/loss": None, "test/bleu": 1 / 3, "ids": [1]}
    folder.write_predictions("test", ({"id": i, "prediction": "a\u2028b ș"} for i in range(2)))
    lines = (tmp_path / "predictions" / "test.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["id"] for line in lines[:-1]] == [0, 1]
    assert "ș" in lines[0]


@pytest.mark.parametrize("name", ["test_x/../../../evil", "a/b", "..", ".x", "a\\b"])
def test_predictions_stay_in_their_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot name a split or test"):
        RunFolder(tmp_path / "run").write_predictions(name, [{"id": 1}])
    assert [path.name for path in tmp_path.rglob("*")] == ["run"]


def test_values_of_numpy_and_torch_are_numbers(tmp_path: Path) -> None:
    values = [np.float32(0.5), np.int64(3), np.bool_(True), np.float32("nan"), torch.tensor(0.5)]
    RunFolder(tmp_path).write_json("metrics.json", {"a": values, "b": np.array([1.0, np.inf])})
    found = RunFolder(tmp_path).read_json("metrics.json")
    assert found == {"a": [0.5, 3, True, None, 0.5], "b": [1.0, None]}


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("metrics.json", {"a": 1})

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "sync", full)
        with pytest.raises(OSError, match="No space left"):
            folder.write_json("metrics.json", {"a": 2})
    assert folder.read_json("metrics.json") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_clear_removes_what_a_run_writes_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.mark("done", step=1)
    folder.write_predictions("test", [])
    for name in ("contents.json", "split.json"):
        folder.write_json(name, {})
    save_checkpoint(
        tmp_path / "checkpoints" / "last", Checkpoint({"w": torch.ones(3)}, {}), keep_previous=True
    )
    (tmp_path / "notes.txt").write_text("mine")
    folder.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".attempt", "notes.txt"]


def test_nothing_is_written_after_the_lock_is_lost(tmp_path: Path) -> None:
    def lost() -> None:
        raise LockLost("taken over")

    folder = RunFolder(tmp_path, lost)
    with pytest.raises(LockLost):
        folder.mark("done", step=1)
    assert list(tmp_path.iterdir()) == []


def test_foreign_files_are_not_cleared(tmp_path: Path) -> None:
    """None of these names marks a folder as a run's."""
    for name in ("checkpoints", "predictions", "wandb"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("precious")
    for name in ("metrics.json", "train.jsonl", "delta.safetensors"):
        (tmp_path / name).write_text("precious")
    before = snapshot(tmp_path)
    with pytest.raises(
        UserError, match=r"holds metrics\.json, but no config\.yaml or status\.json"
    ):
        RunFolder(tmp_path).clear()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["config.yaml", "status.json"])
@pytest.mark.parametrize("text", ["", "name: mine\n", "{}", '{"state": "on"}', "[]", "\xff"])
def test_foreign_files_of_the_same_name_are_not_cleared(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "checkpoints").mkdir()
    assert not is_run_folder(tmp_path)
    with pytest.raises(UserError, match="it is not cleared"):
        RunFolder(tmp_path).clear()
    assert (tmp_path / "checkpoints").is_dir()


def test_a_folder_of_links_to_a_run_is_not_a_run_folder(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").mark("done", step=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "status.json").symlink_to(tmp_path / "run" / "status.json")
    assert is_run_folder(tmp_path / "run") and not is_run_folder(tmp_path / "mine")


def test_a_folder_is_a_run_folder_from_its_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = make_run("task=sst2", "method=mam")
    for path in (made, *RECORDED.glob("*/*/*")):
        config, status = ((path / n).read_text() for n in ("config.yaml", "status.json"))
        for number, (name, text) in enumerate((("config.yaml", config), ("status.json", status))):
            if path == made and name == "status.json":
                continue  # the made one has no heartbeat
            folder = RunFolder(tmp_path / path.name / str(number))
            folder.write_text(name, text)
            assert is_run_folder(folder.path)
            folder.clear()
            assert is_run_folder(folder.path), "also when it was stopped while clearing"


@pytest.mark.parametrize("cut", [slice(0, -3), slice(0, 400), slice(7, None)])
def test_a_damaged_run_folder_can_be_cleared(tmp_path: Path, cut: slice) -> None:
    """The readable part of config.yaml still identifies it as a run's."""
    (source,) = RECORDED.glob("sst2/*/*")
    config = (source / "config.yaml").read_text()
    folder = RunFolder(tmp_path)
    folder.write_text("config.yaml", config + "\x00\x01 [")
    folder.write_text("status.json", (source / "status.json").read_text()[cut] + "{")
    folder.clear()
    assert [path.name for path in tmp_path.iterdir()] == [".attempt"]


@pytest.mark.parametrize("damage", ["", "x", "-1", "9" * 5000, "\x00", "1.5", "\u00b2"])
def test_a_damaged_attempt_blocks_nothing(tmp_path: Path, damage: str) -> None:
    folder = RunFolder(tmp_path)
    folder.mark("failed", step=1)
    (tmp_path / ".attempt").write_text(damage)
    assert attempt_number(tmp_path) == 1
    folder.clear()
    assert attempt_number(tmp_path) == 2


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_an_attempt_that_is_not_a_file_blocks_nothing(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    folder = RunFolder(tmp_path)
    folder.mark("failed", step=1)
    make(tmp_path / ".attempt")
    assert attempt_number(tmp_path) == 1
    folder.clear()
    assert attempt_number(tmp_path) == 2


def test_a_damaged_status_is_overwritten(tmp_path: Path) -> None:
    for status in ({"step": "x", "total": []}, {"step": True}, {"step": None, "total": 1.5}, []):
        (tmp_path / "status.json").write_text(json.dumps(status))
        folder = RunFolder(tmp_path)
        folder.mark("running")
        assert (folder.status()["step"], folder.status()["total"]) == (0, None)


def test_text_that_is_not_unicode_is_escaped(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_json("metrics.json", {"path": "out\udcff"})
    assert json.loads((tmp_path / "metrics.json").read_bytes()) == {"path": "out\udcff"}


def test_every_file_of_a_run_is_cleared(tmp_path: Path) -> None:
    """Even if a folder has taken the place of a file."""
    folder = RunFolder(tmp_path)
    folder.mark("failed", step=1)
    for name in set(CONTENT) - {"status.json"}:
        (tmp_path / name / "below").mkdir(parents=True)
    folder.clear()
    assert [path.name for path in tmp_path.iterdir()] == [".attempt"]
