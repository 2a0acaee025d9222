"""The Slurm engine against an `squeue` that is a script on the path."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode

from unipeft_run.config.experiments import read
from unipeft_run.sweeps.engines.worker import WorkerLost
from unipeft_run.sweeps.grid import expand_grid

# Importing it resets all logging handlers, which closes streams that a test captures.
submitit = pytest.importorskip("submitit.slurm.slurm")
slurm = pytest.importorskip("unipeft_run.sweeps.engines.slurm")
pytest.importorskip("hydra_plugins.hydra_submitit_launcher")


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
    slurm.warn_without_gpu(launcher, [cell])
    assert ("hydra.launcher.gpus_per_node=1" in capsys.readouterr().err) == is_warned


def test_the_documented_command_of_a_paper_run_composes() -> None:
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
