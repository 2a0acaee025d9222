"""The rows that a resumed run sends, and those that the server lacks at the end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_wandb import FakeWandB

from unipeft_run.tracking import Trackers, wandb_server
from unipeft_run.tracking import wandb as ours
from unipeft_run.tracking.jsonl import Jsonl
from unipeft_run.tracking.wandb import WandB


def resume(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, stored: int, offline: bool = False
) -> tuple[list[int], str | None]:
    """Resume at record 2 of 4; return the rows sent, and the problem. The server has `stored`."""
    sent: list[int] = []
    run = SimpleNamespace(
        offline=offline,
        starting_step=stored,
        log=lambda row, step: sent.append(step),
        finish=lambda exit_code: None,
        summary={},
        entity="somebody",
        project="unipeft",
        id="x",
    )
    monkeypatch.setattr(WandB, "_open", lambda self, config: run)
    tracker = WandB(folder, "x", mode="online")
    both = Trackers([Jsonl(folder / "train.jsonl"), tracker])
    if not (folder / "train.jsonl").exists():
        for step in (1, 2, 3):  # the third comes after the checkpoint
            Jsonl(folder / "train.jsonl").log({"train/loss": 1 / step}, step)
    both.start({})
    both.begin(2, 4)
    for step in (3, 4):
        both.log({"train/loss": 1 / step}, step)
    both.finish({}, "done")
    return sent, tracker.problem


@pytest.mark.parametrize(
    ("stored", "expected"), [(0, [0, 1, 2, 3]), (1, [1, 2, 3]), (3, [3]), (4, [])]
)
def test_a_resumed_run_sends_what_the_server_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: int, expected: list[int]
) -> None:
    monkeypatch.setattr(wandb_server, "count_rows", lambda *names: 4)
    assert resume(tmp_path, monkeypatch, stored=stored) == (expected, None)


def test_an_offline_attempt_has_its_own_rows_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resume(tmp_path, monkeypatch, stored=0, offline=True) == ([2, 3], None)


@pytest.mark.parametrize(("stored", "gap"), [(0, ""), (4, "; a push cannot fill the gap")])
def test_missing_rows_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: int, gap: str
) -> None:
    monkeypatch.setattr(ours, "CONNECTING", 0)
    monkeypatch.setattr(ours, "stop_service", lambda patience: None)
    monkeypatch.setattr(wandb_server, "count_rows", lambda *names: 2)
    problem = f"Weights & Biases is incomplete for this run: the server has 2 of 4 records{gap}"
    assert resume(tmp_path, monkeypatch, stored=stored)[1] == problem


def track(folder: Path, mode: Any, first: int, last: int) -> str | None:
    tracker = WandB(folder, "x", mode=mode)
    both = Trackers([Jsonl(folder / "train.jsonl"), tracker])
    both.start({})
    both.begin(first - 1, last)
    for step in range(first, last + 1):
        both.log({"train/loss": 1 / step}, step)
    both.finish({}, "done")
    return tracker.problem


@pytest.mark.slow
def test_an_offline_attempt_is_sent_when_the_run_resumes_online(
    server: FakeWandB, tmp_path: Path
) -> None:
    assert track(tmp_path, "offline", 1, 4) is None
    assert track(tmp_path, "online", 5, 8) is None
    rows = [(step, 1 / step) for step in range(1, 9)]
    assert server.runs["x"].history("step", "train/loss") == rows
