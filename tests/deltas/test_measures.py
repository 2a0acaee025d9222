"""Reported peak memory and wall time: peak memory of one run, wall time over all restarts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_cli import call
from tiny_recipe import make_overrides, write
from tiny_training import make_trainer

from unipeft_run import cli
from unipeft_run.runs.checkpoint import load_checkpoint, save_checkpoint
from unipeft_run.runs.folder import RunFolder, attempt_number
from unipeft_run.tracking.build import dashboard_name
from unipeft_run.training.checkpoint_store import LAST
from unipeft_run.training.progress import peak_memory_mib
from unipeft_run.training.trainer import Trainer

CPU = torch.device("cpu")
MIB = 2**18  # float32 values
Train = Callable[..., dict[str, Any]]


class Killed(BaseException):
    """Raised in place of a kill signal."""


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """A function that trains a small run with the command and returns its metrics."""
    write(tmp_path)
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))

    def run(*more: str) -> dict[str, Any]:
        given = make_overrides(
            "sst2", tmp_path, "method=lora_attn", f"output={tmp_path / 'outputs'}", *more
        )
        assert call(cli.train, monkeypatch, *given) == 0
        (metrics,) = (tmp_path / "outputs").glob("*/*/*/metrics.json")
        found: dict[str, Any] = json.loads(metrics.read_text())
        return found

    return run


def can_reset_peak() -> bool:
    """Return whether the system can reset this process's peak memory."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="measures the process's memory")
@pytest.mark.skipif(not can_reset_peak(), reason="the system cannot reset the peak")
def test_peak_memory_excludes_earlier_runs(train: Train) -> None:
    train()  # imports everything
    large = torch.ones(512 * MIB)
    small = [torch.ones(4096) for _ in range(16384)]  # 256 MiB in pieces, which malloc keeps
    assert len(large) and len(small)
    before = peak_memory_mib(CPU)
    del large, small
    assert train("force=true")["peak_memory_mib"] < before - 600


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_peak_memory_of_a_gpu_excludes_earlier_runs(train: Train) -> None:
    torch.ones(512 * MIB, device="cuda")
    assert train()["peak_memory_mib"] < 512


@pytest.mark.slow
def test_wall_seconds_add_up_over_restarts(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first update takes a thousand seconds; the run is killed in the third."""
    late, updates, now, update = 0.0, 0, time.monotonic, Trainer._update

    def slow_update(trainer: Trainer) -> tuple[float, float]:
        nonlocal late, updates
        updates += 1
        if updates == 3:
            raise Killed
        late += 1000 * (updates == 1)
        return update(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now() + late)
        patch.setattr(Trainer, "_update", slow_update)
        with pytest.raises(Killed):
            train()
    began = now()
    assert 1000 < train()["wall_seconds"] < 1100 + now() - began


def test_a_checkpoint_without_wall_seconds_is_resumed(tmp_path: Path) -> None:
    make_trainer(tmp_path, max_steps=6).fit()
    last = load_checkpoint(tmp_path / LAST)
    state = json.loads(json.dumps(last.state))
    assert state["training"].pop("wall_seconds") > 0
    save_checkpoint(tmp_path / LAST, type(last)(last.tensors, state), keep_previous=False)
    trainer = make_trainer(tmp_path)
    assert trainer.fit().step == 20
    assert 0 < trainer.state.clock.seconds() < 600


@pytest.mark.slow
def test_a_restarted_run_gets_another_name(train: Train, tmp_path: Path) -> None:
    train()
    (path,) = (tmp_path / "outputs" / "sst2" / "lora_attn").iterdir()
    assert dashboard_name(path) == f"sst2-lora_attn-{path.name}"
    train()
    assert attempt_number(path) == 1, "the run was already done"
    train("force=true")
    assert dashboard_name(path) == f"sst2-lora_attn-{path.name}-2"
    RunFolder(path, writes=False).clear()
    assert (attempt_number(path), (path / "metrics.json").exists()) == (2, True)
    RunFolder(path).clear()
    RunFolder(path).clear()
    assert attempt_number(path) == 3, "clearing an empty folder is not an attempt"
