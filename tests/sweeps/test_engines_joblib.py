"""hydra/launcher=joblib: how it shares GPUs and cores among cells."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from threading import Thread

import pytest
from omegaconf import DictConfig, OmegaConf
from tiny_engines import install

from unipeft_run.errors import Interrupted, UserError
from unipeft_run.runs.outcome import Outcome, make_outcome
from unipeft_run.sweeps.check import CheckedRun
from unipeft_run.sweeps.engines.interrupts import SIGNALS, hold_signals
from unipeft_run.sweeps.engines.local import cells_at_once, threads_per_cell, visible_gpus
from unipeft_run.sweeps.engines.worker import Worker
from unipeft_run.sweeps.grid import run_grid

DONE = make_outcome("done")


@pytest.mark.parametrize(
    ("given", "found"), [("0,1", "01"), ("", ""), ("-1", ""), ("2,-1,0", "2"), (" 3 , 5", "35")]
)
def test_visible_gpus(monkeypatch: pytest.MonkeyPatch, given: str, found: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == tuple(found)


def test_without_cuda_visible_devices_gpus_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert visible_gpus() == ("0", "1", "2")


def test_joblibs_cells_at_once_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"effective_n_jobs": lambda n: n if n > 0 else 8, "cpu_count": lambda: 8}
    install(monkeypatch, "joblib", **found)
    assert [cells_at_once(-1, 12, gpus, 1) for gpus in (0, 4, 1)] == [8, 4, 1]
    assert [cells_at_once(*given) for given in ((-1, 12, 8, 2), (3, 12, 8, 1))] == [4, 3]
    assert [cells_at_once(*given) for given in ((3, 2, 0, 1), (-1, 12, 1, 2))] == [2, 1]
    assert cells_at_once(1, 12, 8, 1) == 1
    with pytest.raises(UserError, match="n_jobs=0: must be at least 1"):
        cells_at_once(0, 12, 8, 1)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert [threads_per_cell(4), threads_per_cell(2), threads_per_cell(16)] == [2, 4, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads_per_cell(4) is None, "the user's setting takes precedence"


def starts_a_process(cfg: DictConfig) -> Outcome:
    """A job that starts a process."""
    process = multiprocessing.get_context("spawn").Process(target=abs, args=(1,))
    process.start()
    process.join()
    return make_outcome("failed" if process.exitcode else "done")


def test_a_cell_under_joblib_can_start_processes() -> None:
    joblib = pytest.importorskip("joblib")
    cells = [joblib.delayed(Worker(starts_a_process))(OmegaConf.create({})) for _ in range(2)]
    assert joblib.Parallel(n_jobs=2, backend="loky")(cells) == [DONE] * 2


SETTLED = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


def takes_its_share(cfg: DictConfig) -> Outcome:
    """A job that records its resources, once both workers have a cell."""
    given = Path(cfg.output) / "+".join(os.environ[name] for name in SETTLED)
    given.touch()
    while len(list(given.parent.iterdir())) < 2:
        time.sleep(0.1)
    return DONE


def test_joblib_starts_a_worker_for_each_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    import joblib

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-x")
    monkeypatch.delenv("OMP_NUM_THREADS")
    overrides = ["task=sst2", "method=mam", "scale=mini", "seed=1,2", f"output={tmp_path}"]
    code = run_grid(
        "train",
        [*overrides, "hydra/launcher=joblib"],
        takes_its_share,
        lambda cfg, _: CheckedRun(int(cfg.seed)),
    )
    assert code == 0
    threads = max(1, joblib.cpu_count() // 2)
    assert {path.name for path in tmp_path.iterdir()} == {f"3+{threads}", f"GPU-x+{threads}"}


def saves(cfg: DictConfig) -> Outcome:
    """A job that runs until it is interrupted, and then saves."""
    began = Path(cfg.output) / f"{cfg.seed}.began"
    began.write_text(str(os.getpid()))
    try:
        for _ in range(400):
            time.sleep(0.05)
    except KeyboardInterrupt as stop:
        with began.with_suffix(".saved").open("a") as file:
            file.write(f"{stop} ")
        time.sleep(0.3)  # a second signal would be raised here
        raise
    return DONE


def interrupt_all(folder: Path) -> None:
    """Send SIGTERM to this process and to its workers once a cell runs, as `timeout` does."""
    while not any(file.read_text() for file in folder.glob("*.began")):
        time.sleep(0.05)
    tasks = Path("/proc/self/task").glob("*/children")
    children = [pid for file in tasks for pid in file.read_text().split()]
    workers = [p for p in children if b"popen_loky" in Path(f"/proc/{p}/cmdline").read_bytes()]
    for pid in (os.getpid(), *map(int, workers)):
        os.kill(pid, signal.SIGTERM)


def test_an_interrupted_grid_lets_its_workers_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is one GPU, so a second worker is idle; its death would be that of the pool."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown()  # of earlier tests
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    overrides = ["task=sst2", "method=mam", "scale=mini", "seed=1,2", f"output={tmp_path}"]
    handlers = [signal.getsignal(number) for number in SIGNALS]
    Thread(target=interrupt_all, args=(tmp_path,), daemon=True).start()
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        run_grid(
            "train",
            [*overrides, "hydra/launcher=joblib"],
            saves,
            lambda cfg, _: CheckedRun(int(cfg.seed)),
        )
    assert {file.name for file in tmp_path.glob("*.*")} == {"1.began", "1.saved"}
    assert (tmp_path / "1.saved").read_text() == "stopped by SIGTERM ", "once"
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_second_interrupt_ends_a_grid_at_once(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    with pytest.raises(KeyboardInterrupt) as end, hold_signals(stop):
        os.kill(os.getpid(), signal.SIGINT)
        while not stop.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            time.sleep(0.01)
    assert type(end.value) is KeyboardInterrupt
    assert stop.read_text() == str(int(signal.SIGINT))


def runs_alone(cfg: DictConfig) -> Outcome:
    """A job that fails beside another cell; the first one is killed once."""
    own, killed = Path(cfg.output) / "running", Path(cfg.output) / "killed"
    if not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        own.touch(exist_ok=False)
    except FileExistsError:
        return make_outcome("failed", "two cells on one GPU")
    time.sleep(0.3)
    own.unlink()
    return DONE


def test_joblib_runs_one_cell_at_a_time_on_one_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    overrides = ["task=sst2", "method=mam", "scale=mini", "seed=1,2,3", f"output={tmp_path}"]
    code = run_grid(
        "train",
        [*overrides, "hydra/launcher=joblib"],
        runs_alone,
        lambda cfg, _: CheckedRun(int(cfg.seed)),
    )
    assert code == 0, capsys.readouterr().err
