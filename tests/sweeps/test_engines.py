"""Engines: rerunning the cells of killed workers, and sharing the machine among workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from unipeft_run.config import compose, resolve, run_id
from unipeft_run.runs.outcome import Outcome, make_outcome
from unipeft_run.sweeps.engines import launch_in_rounds, rounds
from unipeft_run.sweeps.engines.worker import RoundLog, Worker, WorkerLost

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


def test_the_engine_is_not_part_of_a_runs_identity() -> None:
    overrides = ["task=sst2", "method=mam", "scale=mini"]
    plain = run_id(resolve(compose(overrides, "train")))
    engine = ["hydra/launcher=ray", "hydra.launcher.ray.remote.num_cpus=4"]
    assert run_id(resolve(compose([*engine, *overrides], "train"))) == plain
