"""The Ray engine against a `ray` module that runs tasks in place."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig
from tiny_cli import call
from tiny_engines import install

from unipeft_run import cli
from unipeft_run.config import PlannedRun, compose, plan
from unipeft_run.runs.folder import RunFolder
from unipeft_run.runs.outcome import Outcome, make_outcome
from unipeft_run.sweeps.engines.ray import START_TIMEOUTS
from unipeft_run.sweeps.engines.worker import Worker


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
