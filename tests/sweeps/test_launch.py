"""Runs on several processes, one of which fails, is killed or receives a signal."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_jobs
import torch
from omegaconf import DictConfig
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from unipeft_run.config import plan
from unipeft_run.errors import Interrupted
from unipeft_run.runs.checkpoint import load_newest
from unipeft_run.runs.failures import RESUMES
from unipeft_run.runs.folder import read_status
from unipeft_run.runs.lock import owner_of
from unipeft_run.runs.outcome import Outcome, exit_code, make_outcome
from unipeft_run.runs.reader import read_run
from unipeft_run.sweeps import launch
from unipeft_run.sweeps.check import CheckedRun
from unipeft_run.sweeps.engines import launch_in_rounds
from unipeft_run.sweeps.engines.worker import WorkerLost
from unipeft_run.sweeps.grid import run_grid
from unipeft_run.training import interrupts
from unipeft_run.training.checkpoint_store import LAST
from unipeft_run.training.interrupts import Interrupts

CPU = torch.device("cpu")
TIMEOUT = 150  # seconds; each takes about ten

# ---- the outcome of a run after the failure of one process


def end_of(code: int, *told: tuple[int, str]) -> Any:
    notes: launch.Failures = multiprocessing.get_context("spawn").SimpleQueue()
    for rank, error in told:
        notes.put((rank, make_outcome("failed", error)))
    failure = ProcessFailure(local_rank=1, pid=77, exitcode=code, error_file="")
    return launch._outcome_of(ChildFailedError("train", {1: failure}), 2, notes)


def test_the_first_failure_is_the_reason() -> None:
    for first, second in ((0, 1), (1, 0)):
        outcome = end_of(1, (first, "out of memory"), (second, "another process is gone"))
        assert outcome == make_outcome("failed", "out of memory")


def test_a_killed_process_takes_precedence_over_failed_ones() -> None:
    outcome = end_of(-9, (0, "another process is gone"))
    assert outcome["state"] == "lost"
    memory = "possibly by the kernel for lack of memory"
    assert outcome["error"] == f"process 2 of 2 (77) was killed by SIGKILL, {memory}; {RESUMES}"
    assert exit_code([outcome]) == 1
    assert "killed by SIGSEGV; complete files" in end_of(-11)["error"]


def test_a_process_that_exits_silently_is_named() -> None:
    told = end_of(7, (0, "another process is gone"))
    assert told == make_outcome("failed", "process 2 of 2 (77) ended with exit code 7")


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = {signal.SIGHUP: signal.SIG_IGN}  # as under nohup
    monkeypatch.setattr(signal, "getsignal", handlers.get)
    assert launch._heeded_signals() == ["SIGTERM", "SIGINT", "SIGQUIT"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_exit_code_of_a_signal_raises_interrupted(signum: int) -> None:
    with pytest.raises(Interrupted) as stop:
        end_of(128 + signum)
    assert stop.value.signum == signum


def test_a_grid_reruns_a_lost_cell(capsys: pytest.CaptureFixture[str]) -> None:
    backs: Iterator[list[Outcome | WorkerLost]] = iter(
        [[make_outcome("lost", "killed by SIGKILL"), make_outcome("done")], [make_outcome("done")]]
    )
    assert (
        launch_in_rounds(lambda _: next(backs), [["seed=1"], ["seed=2"]])
        == [make_outcome("done")] * 2
    )
    assert capsys.readouterr().err == "killed by SIGKILL; cells to rerun: 1\n"


def test_a_cell_that_is_always_lost_has_failed() -> None:
    (end,) = launch_in_rounds(lambda _: [make_outcome("lost", "killed by SIGKILL")], [["seed=1"]])
    error = "its worker was lost 3 times; the last time: killed by SIGKILL"
    assert end == make_outcome("failed", error)


# ---- signals


def kill(signum: int) -> None:
    os.kill(os.getpid(), signum)


@contextmanager
def caught() -> Iterator[list[int]]:
    """Collect the signals that reach the handlers installed before."""
    usual: list[int] = []
    numbers = interrupts.SIGNALS
    before = [signal.signal(n, lambda number, _: usual.append(number)) for n in numbers]
    try:
        yield usual
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_to_one_process_has_its_default_effect(second: int) -> None:
    with caught() as usual, Interrupts() as given:
        kill(signal.SIGTERM)
        with pytest.raises(Interrupted):
            given.check(CPU)
        assert usual == []
        kill(second)
        assert usual == [second]


def test_a_repeated_signal_to_several_processes_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(interrupts, "all_reduce_sum", lambda values, _: list(map(float, values)))
    with caught() as usual:
        with Interrupts() as given:
            kill(signal.SIGINT)
            kill(signal.SIGINT)
            with pytest.raises(Interrupted, match="SIGINT"):
                given.last_check(CPU)
            kill(signal.SIGTERM)  # during the save
            assert usual == []
        kill(signal.SIGTERM)
        assert usual == [signal.SIGTERM]


def test_all_processes_stop_for_a_signal_to_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        interrupts, "all_reduce_sum", lambda values, _: [0.0, 1.0]
    )  # another rank's SIGINT
    with Interrupts() as given, pytest.raises(Interrupted, match="SIGINT"):
        given.check(CPU)


def test_no_signal_is_lost_at_the_end_of_training() -> None:
    with caught(), Interrupts() as given:
        kill(signal.SIGTERM)
        with pytest.raises(Interrupted):
            given.last_check(CPU)


# ---- real processes


@contextmanager
def started(job: str, output: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the job in two processes, and kill those that are left at the end."""
    paths = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        [sys.executable, tiny_jobs.__file__, job, str(output)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def outcome_of(job: str, output: Path, code: int = 1) -> tuple[Any, str]:
    """Return the outcome of the job, and its stderr."""
    with started(job, output) as process:
        out, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code, errors
    return json.loads(out), errors


def wait_for(path: Path) -> None:
    end = time.monotonic() + TIMEOUT
    while not path.exists() or (path.name.startswith("pid") and not path.read_text()):
        assert time.monotonic() < end, path
        time.sleep(0.05)


def folder_of(output: Path) -> Path:
    return tiny_jobs.config_of(output).folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "state", "part"),
    [
        ("memory_of_one", "failed", "out of memory; a smaller recipe.batch_size"),
        ("killed", "lost", "was killed by SIGKILL, possibly by the kernel"),
        ("exits", "failed", "ended with exit code 7"),
    ],
)
def test_the_failure_of_one_process_ends_the_run(
    tmp_path: Path, job: str, state: str, part: str
) -> None:
    outcome, errors = outcome_of(job, tmp_path)
    assert outcome["state"] == state and part in outcome["error"]
    assert "\n" not in outcome["error"] and outcome["seconds"] > 0
    assert errors == "", "the reason is printed once, with the outcome"
    run, path = read_run(folder_of(tmp_path)), folder_of(tmp_path)
    assert (run.state, run.step, run.error) == ("failed", 3, outcome["error"])
    assert owner_of(path) is None


@pytest.mark.slow
def test_a_user_error_in_all_processes_is_one_outcome(tmp_path: Path) -> None:
    outcome, errors = outcome_of("refused", tmp_path, code=2)
    assert (outcome["state"], errors) == ("refused", "")
    assert outcome["error"] == "there is no such file; see task.path"
    assert not folder_of(tmp_path).exists()


def assert_saved(folder: Path, error: str) -> None:
    status, last = read_status(folder), load_newest(folder / LAST)
    assert (status["state"], status["error"]) == ("interrupted", error)
    assert last is not None
    step = last.state["training"]["progress"]["step"]
    assert 0 < step < 500 and status["step"] == step
    assert read_run(folder).state == "interrupted"


@pytest.mark.slow
def test_ctrl_c_reaches_all_processes_and_the_state_is_saved(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with started("trains", tmp_path) as process:
        wait_for(folder / "pid1")
        time.sleep(3)
        os.killpg(process.pid, signal.SIGINT)
        wait_for(folder / "saving")
        children = [int((folder / f"pid{rank}").read_text()) for rank in (0, 1)]
        for child in children:
            os.kill(child, signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (130, "stopped by SIGINT\n")
    assert_saved(folder, "stopped by SIGINT")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_stops_all(tmp_path: Path, rank: int) -> None:
    folder = folder_of(tmp_path)
    with started("trains", tmp_path) as process:
        wait_for(folder / "pid1")
        time.sleep(3)
        os.kill(int((folder / f"pid{rank}").read_text()), signal.SIGTERM)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (143, "stopped by SIGTERM\n")
    assert_saved(folder, "stopped by SIGTERM")


@pytest.mark.slow
def test_an_interrupt_of_one_outside_training_terminates_all(tmp_path: Path) -> None:
    with started("interrupted_alone", tmp_path) as process:
        _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (130, "stopped by SIGINT\n")


@pytest.mark.slow
def test_a_cell_with_a_killed_process_is_rerun_until_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    given = ["task=sst2", "method=mam", "seed=1,2", "processes=2", f"output={tmp_path}"]

    def check(cfg: DictConfig, _: Sequence[str]) -> CheckedRun:
        return CheckedRun(plan(cfg).folder)

    assert run_grid("train", given, tiny_jobs.in_a_grid, check) == 0
    assert "was killed by SIGKILL" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
