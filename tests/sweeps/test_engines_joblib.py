"""hydra/launcher=joblib: how it shares GPUs and cores among cells."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from tiny_engines import install

from unipeft_run.errors import UserError
from unipeft_run.runs.outcome import Outcome, make_outcome
from unipeft_run.sweeps.check import CheckedRun
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
