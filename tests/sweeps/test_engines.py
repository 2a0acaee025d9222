"""Engines: rerunning the cells of killed workers, and sharing the machine among workers."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from tiny_engines import install

from unipeft_run.config import compose, resolve, run_id
from unipeft_run.errors import UserError
from unipeft_run.runs.outcome import Outcome, make_outcome
from unipeft_run.sweeps.check import CheckedRun
from unipeft_run.sweeps.engines import launch_in_rounds, rounds
from unipeft_run.sweeps.engines.local import visible_gpus
from unipeft_run.sweeps.engines.worker import RoundLog, Worker, WorkerLost
from unipeft_run.sweeps.grid import run_grid

Back = Outcome | WorkerLost
CELLS = [[f"seed={seed}"] for seed in range(6)]
DONE = make_outcome("done")


# ---- rounds


def recorded(back: Callable[[int, str], Back]) -> tuple[list[list[str]], rounds.Launch]:
    """Return a launcher that returns `back(round, cell)`, and the cells of each round."""
    seen: list[list[str]] = []

    def launch(cells: list[list[str]]) -> list[Back]:
        seen.append([cell[0].removeprefix("seed=") for cell in cells])
        return [back(len(seen), name) for name in seen[-1]]

    return seen, launch


def test_only_lost_cells_are_rerun(capsys: pytest.CaptureFixture[str]) -> None:
    seen, launch = recorded(lambda n, cell: WorkerLost("gone") if (n, cell) == (1, "2") else DONE)
    assert launch_in_rounds(launch, CELLS) == [DONE] * 6
    assert seen == [list("012345"), ["2"]]
    assert capsys.readouterr().err == "gone; cells to rerun: 1\n"


def test_a_cell_that_always_kills_its_worker_fails_alone() -> None:
    seen, launch = recorded(lambda n, cell: WorkerLost("state FAILED") if cell in "14" else DONE)
    ends = launch_in_rounds(launch, CELLS)
    assert [end["state"] for end in ends] == ["done", "failed", "done", "done", "failed", "done"]
    assert ends[1]["error"] == "its worker was lost 3 times; the last time: state FAILED"
    assert seen == [list("012345"), ["1", "4"], ["1", "4"]]


def test_in_a_pool_with_shared_fate_only_the_killing_cell_fails() -> None:
    """Two workers run the cells in pairs; cell 1 always kills its worker."""
    seen: list[list[str]] = []

    def launch(cells: list[list[str]]) -> list[Back]:
        names = [cell[0].removeprefix("seed=") for cell in cells]
        seen.append(names)
        ends: dict[str, Back] = {}
        queue = list(names)
        while queue:
            pair, queue = queue[:2], queue[2:]
            if "1" in pair:
                return [ends.get(n) or WorkerLost("gone", begun=n in pair) for n in names]
            ends |= dict.fromkeys(pair, DONE)
        return [ends[name] for name in names]

    ends = launch_in_rounds(launch, CELLS, shared_fate=True)
    assert [end["state"] for end in ends] == ["done", "failed", *["done"] * 4]
    assert seen == [list("012345"), list("234501"), ["0"], ["1"]]


def test_workers_that_die_before_any_cell_are_not_restarted_for_ever() -> None:
    seen, launch = recorded(lambda n, cell: WorkerLost("gone", begun=False))
    assert {end["state"] for end in launch_in_rounds(launch, CELLS, shared_fate=True)} == {"failed"}
    assert len(seen) == 8, "twice together, then each by itself"


def test_a_launcher_that_fails_keeps_finished_outcomes(capsys: pytest.CaptureFixture[str]) -> None:
    def back(number: int, cell: str) -> Back:
        if number == 2:
            raise RuntimeError("no queue\nand more")
        return WorkerLost("gone") if cell == "3" else DONE

    ends = launch_in_rounds(recorded(back)[1], CELLS)
    assert [end["state"] for end in ends] == [*["done"] * 3, "failed", "done", "done"]
    assert ends[3]["error"] == "the launcher failed: RuntimeError: no queue"
    assert "Traceback" in capsys.readouterr().err


def test_the_lock_of_a_dead_worker_elsewhere_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    found = {1: WorkerLost("gone"), 2: make_outcome("running elsewhere"), 3: DONE}
    seen, launch = recorded(lambda n, cell: found[n])
    assert launch_in_rounds(launch, CELLS[:1]) == [DONE]
    assert waits == [rounds.STALE_SECONDS]
    seen, launch = recorded(lambda n, cell: make_outcome("running elsewhere"))
    (end,) = launch_in_rounds(launch, CELLS[:1])
    assert end["state"] == "running elsewhere", "of another command: not waited for"
    assert len(seen) == len(waits) == 1


# ---- a worker's resources

SHARE = """
import json, os, sys
from pathlib import Path
from omegaconf import OmegaConf
from unipeft_run.sweeps.engines.worker import RoundLog, Worker
from hydra.core.hydra_config import HydraConfig

def job(cfg):
    assert "torch" not in sys.modules
    print(json.dumps({k: os.environ.get(k) for k in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}))
    sys.stdout.flush()
    sys.stdin.readline()
    return {"state": "done", "error": "", "seconds": 1.0, "metrics": {}}

HydraConfig.instance().cfg = OmegaConf.create({"hydra": {"job": {"num": int(sys.argv[2])}}})
HydraConfig.get = lambda: HydraConfig.instance().cfg.hydra
worker = Worker(job, RoundLog(Path(sys.argv[1]), 1), threads=8, gpus=tuple(sys.argv[4].split(",")))
worker(OmegaConf.create({"processes": int(sys.argv[3])}))
"""


class Share:
    """A process in the middle of a `Worker`'s cell, with the resources that it was assigned."""

    def __init__(self, folder: Path, number: int, processes: int, gpus: str) -> None:
        arguments = [str(folder), str(number), str(processes), gpus]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SHARE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        given = json.loads(self.process.stdout.readline())
        self.gpus, self.threads = given["CUDA_VISIBLE_DEVICES"], given["OMP_NUM_THREADS"]

    def end(self, how: signal.Signals | None = None) -> None:
        """Let the process finish, or kill it."""
        if how:
            self.process.send_signal(how)
        self.process.communicate("\n")


def test_each_worker_has_its_own_gpu_and_a_dead_worker_frees_it(tmp_path: Path) -> None:
    shares = [Share(tmp_path, n, 1, "4,GPU-b,7") for n in range(4)]
    assert [share.gpus for share in shares] == ["4", "GPU-b", "7", "4"]
    assert {share.threads for share in shares} == {"8"}
    shares[1].end(signal.SIGKILL)
    shares[2].end()
    late = Share(tmp_path, 4, 1, "4,GPU-b,7")
    assert late.gpus == "GPU-b"
    for share in (shares[0], shares[3], late):
        share.end()
    notes = RoundLog(tmp_path, 1)
    found = [notes.read(number, "gone") for number in range(6)]
    states = [f"lost {f.begun}" if isinstance(f, WorkerLost) else f["state"] for f in found]
    assert states == ["done", "lost True", "done", "done", "done", "lost False"]


def test_the_processes_of_a_cell_have_a_gpu_each_and_share_its_threads(tmp_path: Path) -> None:
    shares = [Share(tmp_path, n, 2, "0,1,2,3") for n in range(2)]
    assert [share.gpus for share in shares] == ["0,1", "2,3"]
    assert {share.threads for share in shares} == {"4"}
    for share in shares:
        share.end()


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


@pytest.mark.parametrize(
    ("chosen", "slurm", "threads"), [(None, "6", "6"), ("2", "6", "2"), (None, None, None)]
)
def test_slurms_cores_set_the_threads_unless_the_user_did(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, slurm: str | None, threads: str | None
) -> None:
    for name, value in (("OMP_NUM_THREADS", chosen), ("SLURM_CPUS_PER_TASK", slurm)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    seen: list[str | None] = []

    def job(cfg: DictConfig) -> Outcome:
        seen.append(os.environ.get("OMP_NUM_THREADS"))
        return DONE

    assert Worker(job)(OmegaConf.create({})) == DONE
    assert seen == [threads]


def test_joblibs_workers_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from unipeft_run.sweeps.engines.local import count_workers, threads_per_cell

    found = {"effective_n_jobs": lambda n: n if n > 0 else 8, "cpu_count": lambda: 8}
    install(monkeypatch, "joblib", **found)
    assert [count_workers(-1, 12, gpus, 1) for gpus in (0, 4, 1)] == [8, 4, 2]
    assert [count_workers(*given) for given in ((-1, 12, 8, 2), (3, 12, 8, 1))] == [4, 3]
    assert count_workers(3, 2, 0, 1) == 2
    assert count_workers(1, 12, 8, 1) == 1
    with pytest.raises(UserError, match="n_jobs=0: must be at least 1"):
        count_workers(0, 12, 8, 1)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert [threads_per_cell(4, 12), threads_per_cell(4, 2), threads_per_cell(16, 16)] == [2, 4, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads_per_cell(4, 12) is None, "the user's setting takes precedence"


def test_the_engine_is_not_part_of_a_runs_identity() -> None:
    overrides = ["task=sst2", "method=mam", "scale=mini"]
    plain = run_id(resolve(compose(overrides, "train")))
    engine = ["hydra/launcher=ray", "hydra.launcher.ray.remote.num_cpus=4"]
    assert run_id(resolve(compose([*engine, *overrides], "train"))) == plain


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
