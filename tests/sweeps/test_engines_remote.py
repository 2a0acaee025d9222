"""Ray and Slurm engines against fakes: a `ray` module that runs tasks in place, and an `squeue`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import DictConfig
from tiny_cli import call
from tiny_engines import install

from unipeft_run import cli
from unipeft_run.config import PlannedRun, compose, plan
from unipeft_run.config.experiments import read
from unipeft_run.runs.folder import RunFolder
from unipeft_run.runs.outcome import Outcome, make_outcome
from unipeft_run.sweeps.engines.ray import START_TIMEOUTS
from unipeft_run.sweeps.engines.worker import Worker, WorkerLost
from unipeft_run.sweeps.grid import expand_grid


class Crashed(Exception):
    """Stands in for ray.exceptions.WorkerCrashedError."""


def fake_ray(monkeypatch: pytest.MonkeyPatch, gpus: int, crashes: list[int]) -> dict[str, Any]:
    """Install it; return the settings and environments that it is given.

    crashes: of each task in turn, 1 for a worker that dies before it, 2 for one that dies after.
    """
    seen: dict[str, Any] = {"remote": [], "environment": []}
    Crashed.__name__ = "WorkerCrashedError"

    def init(**settings: Any) -> None:
        seen["init"] = settings
        if settings.get("address") == "nowhere:1":
            raise ConnectionError("cannot connect\nat all")

    def remote(**settings: Any) -> Callable[[Callable[..., Any]], Any]:
        seen["remote"].append(settings)
        return lambda run: SimpleNamespace(remote=lambda *given: (run, given))

    def get(task: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
        run, (*given, environment) = task
        seen["environment"].append(environment)
        when = crashes.pop(0) if crashes else 0
        back = None if when == 1 else run(*given, environment)
        if when:
            raise Crashed("The worker died unexpectedly")
        return back

    resources = {"CPU": 8.0, **({"GPU": float(gpus)} if gpus else {})}
    install(
        monkeypatch,
        "ray",
        init=init,
        remote=remote,
        get=get,
        is_initialized=lambda: "init" in seen,
        cluster_resources=lambda: resources,
        exceptions=SimpleNamespace(RayError=Crashed),
    )
    monkeypatch.setenv("UNIPEFT_CACHE", "cache")
    for name in START_TIMEOUTS:
        monkeypatch.setenv(name, "1")
    return seen


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Mapping[str, Any]]:
    """Collect the configurations that reach `run`, which is a stub here."""
    seen: list[Mapping[str, Any]] = []

    def run(planned: PlannedRun) -> dict[str, Any]:
        seen.append(planned.config.plain())
        RunFolder(planned.folder).write_text("config.yaml", "")
        return {"state": "done"}

    install(monkeypatch, "unipeft_run.run", run=run)
    monkeypatch.chdir(tmp_path)
    return seen


def train(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    given = ("-m", "task=sst2", "method=mam", "scale=mini", "seed=1,2", *overrides)
    return call(cli.train, monkeypatch, *given, "hydra/launcher=ray")


@pytest.mark.parametrize("gpus", [0, 4])
def test_ray_runs_each_cell_with_its_resources(
    monkeypatch: pytest.MonkeyPatch, runs: Sequence[Mapping[str, Any]], tmp_path: Path, gpus: int
) -> None:
    seen = fake_ray(monkeypatch, gpus, crashes=[1, 0])
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("UNIPEFT_CONFIG_DIR", str(tmp_path))
    assert train(monkeypatch, "hydra.launcher.ray.remote.num_cpus=3") == 0
    assert [run["seed"] for run in runs] == [2, 1], "the worker of the first was lost"
    share = {"num_cpus": 3, "num_gpus": int(bool(gpus)), "max_retries": 0}
    assert seen["remote"] == [share] * 3
    expected = {"UNIPEFT_CACHE": "cache", "OMP_NUM_THREADS": "3"}
    expected |= {"UNIPEFT_CONFIG_DIR": str(tmp_path)}
    assert seen["environment"][0] == expected
    assert seen["init"] == {"include_dashboard": False, "object_store_memory": 100 * 2**20}


@pytest.mark.slow
def test_a_forced_cell_that_is_rerun_is_not_cleared_again(
    monkeypatch: pytest.MonkeyPatch, runs: Sequence[Mapping[str, Any]]
) -> None:
    fake_ray(monkeypatch, 0, crashes=[2, 1])
    assert train(monkeypatch, "force=true") == 0
    assert [(run["seed"], run["force"]) for run in runs] == [(1, True), (1, False), (2, True)]


def test_force_clears_a_run_once_in_a_submission(tmp_path: Path) -> None:
    """One worker is lost before clearing, one job is requeued after; then a new command forces."""
    overrides = ["task=sst2", "method=mam", "scale=mini", f"output={tmp_path}", "force=true"]
    config = plan(compose(overrides)).folder / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("of an earlier submission")
    os.utime(config, (1, 1))
    forced: list[bool] = []

    def start(submission: str, clears: bool) -> None:
        def job(cfg: DictConfig) -> Outcome:
            forced.append(cfg.force)
            if clears:
                config.write_text("of this one")
            return make_outcome("done")

        Worker(job, submission=submission)(compose(overrides, "train"))

    for clears in (False, True, True):
        start("a", clears)
    assert forced == [True, True, False]
    os.utime(config, (1, 1))
    start("b", clears=True)
    start("b", clears=True)
    assert forced[3:] == [True, False]


@pytest.mark.slow
def test_a_remote_ray_gets_no_settings_of_a_local_one(
    monkeypatch: pytest.MonkeyPatch,
    runs: Sequence[Mapping[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = fake_ray(monkeypatch, 0, crashes=[])
    assert train(monkeypatch, "hydra.launcher.ray.init.address=head:6379") == 0
    assert seen["init"] == {"address": "head:6379"}
    seen = fake_ray(monkeypatch, 0, crashes=[])
    assert train(monkeypatch, "hydra.launcher.ray.init.address=nowhere:1") == 2
    err = capsys.readouterr().err.splitlines()
    assert (
        err[-1]
        == "hydra/launcher=ray: Ray could not be started or reached at nowhere:1: cannot connect"
    )
    monkeypatch.setitem(sys.modules, "ray", None)
    assert train(monkeypatch) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1] == "hydra/launcher=ray needs pip install 'unipeft[ray]'"


# ---- Slurm, as a script on the path


@pytest.mark.parametrize(
    ("launcher", "cell", "is_warned"),
    [
        ({}, ["task=xsum", "method=mam"], True),
        ({"gpus_per_node": None, "additional_parameters": {}}, ["method=mam", "scale=paper"], True),
        ({"gpus_per_node": 1}, ["task=xsum", "method=mam"], False),
        ({"additional_parameters": {"gpus": 1}}, ["task=xsum", "method=mam"], False),
        ({}, ["task=xsum", "method=mam", "scale=mini"], False),
        ({}, ["run=outputs/xsum/mam/ab12cd34"], False),
    ],
)
def test_jobs_of_a_paper_run_without_a_gpu_are_announced(
    launcher: Mapping[str, Any],
    cell: list[str],
    is_warned: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("submitit.slurm.slurm")
    from unipeft_run.sweeps.engines import slurm

    slurm.warn_without_gpu(launcher, [cell])
    assert ("hydra.launcher.gpus_per_node=1" in capsys.readouterr().err) == is_warned


def test_the_documented_command_of_a_paper_run_composes() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    text = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    lines = text.replace("\\\n", " ").splitlines()
    experiment = read("table6_xsum")
    assert experiment is not None
    (line,) = [line for line in lines if "unipeft train" in line and "gpus_per_node=1" in line]
    program, command, flag, *words = line.split()
    assert [program, command, flag] == ["unipeft", "train", "-m"]
    hydra, settings, rows = expand_grid("train", words)
    assert len(rows) == 3 * len(experiment.cells)
    mode = {"run_mode": RunMode.MULTIRUN, "with_log_configuration": False}
    config = hydra.compose_config("train", [*settings, *rows[0][1]], **mode)
    assert (config.hydra.launcher.gpus_per_node, config.scale) == (1, "paper")
    assert config.hydra.launcher.submitit_folder == "outputs/.submitit/%j"


def test_a_job_that_left_the_queue_without_a_result_is_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    submitit = pytest.importorskip("submitit.slurm.slurm")
    from unipeft_run.sweeps.engines import slurm

    monkeypatch.setattr(submitit.SlurmJob, "watcher", submitit.SlurmJob.watcher)
    monkeypatch.setattr(submitit.SlurmJob, "results", submitit.SlurmJob.results)
    monkeypatch.setattr(submitit.SlurmJob, "_results_timeout_s", 0)
    slurm.install_queue_watcher()
    queue = tmp_path / "queue"
    program = tmp_path / "squeue"
    program.write_text(f"#!/bin/sh\ncat {queue}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    queue.write_text("7_0|RUNNING|one\n7_1|CANCELLED|\n7_3|PENDING|\n")
    jobs = [submitit.SlurmJob(tmp_path, f"7_{n}") for n in range(4)]
    assert [job.done(force_check=True) for job in jobs] == [False, True, True, False]
    found = [slurm.results_of(job)[0]._return_value for job in jobs[1:3]]
    assert [(type(f), str(f)) for f in found] == [
        (RuntimeError, "Slurm job 7_1 was cancelled"),
        (WorkerLost, "Slurm job 7_2 ended without a result (state GONE)"),
    ]
    program.write_text("#!/bin/sh\nexit 1\n")
    assert not jobs[0].done(force_check=True), "an unreachable controller says nothing about jobs"
    program.write_text(f"#!/bin/sh\ncat {queue}\n")
    queue.write_text("7_3|RUNNING|one\n")
    time.sleep(0.01)  # it does not poll twice in a millisecond
    assert [job.done(force_check=True) for job in jobs] == [True, True, True, False]
    assert jobs[1].state == "CANCELLED"
