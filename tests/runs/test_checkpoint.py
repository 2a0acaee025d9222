"""Checkpoints on disk are complete, verified, and plain data."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unipeft_run.runs.checkpoint import (
    Checkpoint,
    DamagedCheckpoint,
    load_checkpoint,
    load_newest,
    save_checkpoint,
    sha256,
)
from unipeft_run.training.optim import build_optimizer
from unipeft_run.training.state import (
    load_optimizer_state,
    load_parameters,
    load_rng_state,
    optimizer_state,
    rng_state,
    trained_parameters,
)


def content(number: int) -> Checkpoint:
    return Checkpoint({"w": torch.full((3,), float(number))}, {"step": number, "lr": 0.1 + 0.2})


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_round_trip_to_the_last_bit(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last", content(3), keep_previous=True)
    found = load_checkpoint(tmp_path / "last")
    assert torch.equal(found.tensors["w"], content(3).tensors["w"])
    assert found.state == {"step": 3, "lr": 0.1 + 0.2}


def test_only_safetensors_and_json(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last", content(1), keep_previous=True)
    names = sorted(path.name for path in (tmp_path / "last").iterdir())
    assert names == ["checksums.json", "state.json", "tensors.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


@pytest.mark.parametrize(("keep", "names"), [(True, ["last", "last.previous"]), (False, ["last"])])
def test_the_previous_checkpoint_is_kept_on_request(
    tmp_path: Path, keep: bool, names: list[str]
) -> None:
    for number in (1, 2, 3):
        save_checkpoint(tmp_path / "last", content(number), keep_previous=keep)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert load_checkpoint(tmp_path / "last").state["step"] == 3
    if keep:
        assert load_checkpoint(tmp_path / "last.previous").state["step"] == 2


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "checksums.json"])
@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_named_and_the_previous_checkpoint_used(
    tmp_path: Path,
    name: str,
    damage: Callable[[Path], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    last = tmp_path / "last"
    for number in (1, 2):
        save_checkpoint(last, content(number), keep_previous=True)
    damage(last / name)
    found = load_newest(last)
    assert found is not None and found.state["step"] == 1
    assert str(last) in caplog.text


def test_no_undamaged_checkpoint_left(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "last") is None
    save_checkpoint(tmp_path / "last", content(1), keep_previous=True)
    flip(tmp_path / "last" / "tensors.safetensors")
    with pytest.raises(DamagedCheckpoint, match="no undamaged checkpoint is left"):
        load_newest(tmp_path / "last")


def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "last", content(1), keep_previous=True)

    def full(path: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(tmp_path / "last", content(2), keep_previous=True)
    assert load_checkpoint(tmp_path / "last").state["step"] == 1
    save_checkpoint(tmp_path / "last", content(2), keep_previous=True)
    assert load_checkpoint(tmp_path / "last").state["step"] == 2


def test_an_interrupted_checkpoint_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unipeft_run.runs.checkpoint.sync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "last", content(1), keep_previous=True)
    assert list(tmp_path.iterdir()) == []


def test_random_states_are_restored() -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(), np.random.normal(), torch.rand(1).item()]

    random.gauss(), np.random.normal()  # each caches a second value for the next call
    kept = rng_state()
    kept = Checkpoint(kept.tensors, json.loads(json.dumps(kept.state)))
    first = draw()
    draw()
    load_rng_state(kept)
    assert draw() == first


@pytest.mark.parametrize("name", ["adamw", "adamw_official"])
def test_optimizer_state_is_matched_by_name(name: str, tmp_path: Path) -> None:
    def trained(steps: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for step in range(steps):
            optimizer.zero_grad()
            model(torch.full((2, 3), float(step))).square().sum().backward()
            optimizer.step()

    models, optimizers = [], []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)))
        optimizers.append(build_optimizer(models[-1], name=name, lr=0.1, weight_decay=0.1))
    trained(3, models[0], optimizers[0])
    kept = optimizer_state(optimizers[0], models[0])
    assert "0.weight/exp_avg" in kept.tensors
    save_checkpoint(tmp_path / "last", kept, keep_previous=False)
    kept = load_checkpoint(tmp_path / "last")
    load_parameters(models[1], trained_parameters(models[0]))
    load_optimizer_state(optimizers[1], models[1], kept)
    for model, optimizer in zip(models, optimizers, strict=True):
        trained(3, model, optimizer)
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))


def test_a_checkpoint_of_another_model_is_refused() -> None:
    small, large = nn.Linear(2, 2, bias=False), nn.Linear(2, 2)
    with pytest.raises(ValueError, match="of another model: only one of them has 'bias'"):
        load_parameters(large, trained_parameters(small))
    states = [build_optimizer(model, name="adamw", lr=0.1) for model in (small, large)]
    with pytest.raises(ValueError, match="over other parameters"):
        load_optimizer_state(states[1], large, optimizer_state(states[0], small))


def test_frozen_parameters_are_not_saved() -> None:
    model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2))
    assert list(trained_parameters(model)) == ["1.weight", "1.bias"]


@pytest.mark.parametrize("damage", ["x", "[" * 100_000, "1e9999", '{"tensors.safetensors": 1}'])
def test_hostile_checksums_are_damage(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path / "last", content(1), keep_previous=True)
    (tmp_path / "last" / "checksums.json").write_text(damage)
    with pytest.raises(DamagedCheckpoint, match="last"):
        load_checkpoint(tmp_path / "last")


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "checksums.json"])
def test_a_fifo_in_a_checkpoint_is_damage(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path / "last", content(1), keep_previous=True)
    (tmp_path / "last" / name).unlink()
    os.mkfifo(tmp_path / "last" / name)
    with pytest.raises(DamagedCheckpoint, match="is not a regular file"):
        load_checkpoint(tmp_path / "last")


@pytest.mark.parametrize(
    ("name", "text"), [("tensors.safetensors", "x"), ("state.json", "[" * 9999)]
)
def test_damage_with_a_matching_checksum_is_damage(tmp_path: Path, name: str, text: str) -> None:
    last = tmp_path / "last"
    save_checkpoint(last, content(1), keep_previous=True)
    (last / name).write_text(text)
    sums = {file: sha256(last / file) for file in ("tensors.safetensors", "state.json")}
    (last / "checksums.json").write_text(json.dumps(sums))
    with pytest.raises(DamagedCheckpoint, match="cannot be read"):
        load_checkpoint(last)
