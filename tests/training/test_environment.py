"""Environment variables set the rank and world size, and never change a run's results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import make_trainer

from unipeft_run import cli
from unipeft_run.errors import UserError
from unipeft_run.training.distributed.environment import DISTRIBUTED, prepare_environment

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}
ALONE = {**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_CPUS_PER_TASK": "2", "PMI_SIZE": "1"}
ACCELERATE = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_USE_FSDP": "true",
    "ACCELERATE_USE_MEGATRON_LM": "true",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
    "ACCELERATE_USE_SAGEMAKER": "true",
    "ACCELERATE_USE_CPU": "true",
    "ACCELERATE_TORCH_DEVICE": "meta",
    "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
    "ACCELERATE_DYNAMO_USE_DYNAMIC": "what",
    "ACCELERATE_DOWNCAST_BF16": "true",
    "ACCELERATE_DEBUG_MODE": "maybe",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "PARALLELISM_CONFIG_TP_SIZE": "2",
    "MEGATRON_LM_TP_DEGREE": "2",
}
SHORTER = {
    "NVIDIA_TF32_OVERRIDE": "1",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "XLA_USE_BF16": "1",
}
LAUNCHED = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO", **TORCHRUN}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        TORCHRUN,
        ALONE,
        SLURM,
        {**SLURM, **TORCHRUN},
        {**TORCHRUN, "OMPI_COMM_WORLD_SIZE": "2"},
        {"WORLD_SIZE": "1"},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"RANK": "0"},
        {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
        {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
    ],
    ids=str,
)
def test_a_legitimate_environment_is_left_alone(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(environ)
    prepare_environment(environ)
    assert environ == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"RANK": "1"}, "RANK=1: given without WORLD_SIZE."),
        ({"RANK": "-1"}, "RANK=-1: given without WORLD_SIZE."),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2: must be from 0 to 1."),
        ({"RANK": ""}, "RANK='': must be a whole number."),
        ({"RANK": "one"}, "RANK='one': must be a whole number."),
        ({"RANK": "٣"}, "RANK='٣': must be a whole number."),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE='': must be a whole number."),
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE='abc': must be a whole number."),
        ({"WORLD_SIZE": "2.0"}, "WORLD_SIZE='2.0': must be a whole number."),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0: must be at least 1."),
        ({"WORLD_SIZE": "-3"}, "WORLD_SIZE=-3: must be at least 1."),
        (
            {"WORLD_SIZE": "2"},
            "WORLD_SIZE=2 is set, but not RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
            "WORLD_SIZE=2 is set, but not MASTER_ADDR, MASTER_PORT.",
        ),
        ({**TORCHRUN, "MASTER_ADDR": ""}, "WORLD_SIZE=2 is set, but not MASTER_ADDR."),
        ({**TORCHRUN, "MASTER_PORT": "http"}, "MASTER_PORT='http': must be a whole number."),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1: given without WORLD_SIZE."),
        (
            {"LOCAL_RANK": "0"},
            "LOCAL_RANK=0 is set, but not RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT.",
        ),
        ({**TORCHRUN, "LOCAL_RANK": "5"}, "LOCAL_RANK=5: must be from 0 to 1."),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE=2: MPI is not supported."),
        ({"PMI_SIZE": "4"}, "PMI_SIZE=4: MPI is not supported."),
    ],
    ids=str,
)
def test_a_contradictory_environment_is_one_sentence(
    environ: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with pytest.raises(UserError) as problem:
        prepare_environment(dict(environ))
    assert str(problem.value).startswith(sentence)
    for name in DISTRIBUTED:
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert cli.main(cli.TRAIN, ["task=sst2", "method=mam"]) == 2
    assert capsys.readouterr().err == f"{problem.value}\n"


@pytest.mark.parametrize("environ", [ACCELERATE, SHORTER], ids=["accelerate", "types"])
def test_variables_that_change_results_are_removed_and_named(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = {**environ, "HOME": "/"}
    prepare_environment(given)
    assert given == {"HOME": "/"}
    names = ", ".join(f"{name}={value}" for name, value in sorted(environ.items()))
    assert (
        capsys.readouterr().err
        == f"ignored environment variables, which would change the results: {names}\n"
    )


def test_the_defaults_of_accelerates_launcher_are_removed_silently(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = dict(LAUNCHED)
    prepare_environment(given)
    assert given == TORCHRUN
    assert capsys.readouterr().err == ""


def test_other_ranks_do_not_repeat_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    prepare_environment({**TORCHRUN, **SHORTER})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("environ", [{}, ACCELERATE, SHORTER], ids=["none", "accelerate", "types"])
def test_the_environment_changes_no_weight(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = make_trainer(tmp_path / "expected", evaluate=None)
    expected.fit()
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    trainer = make_trainer(tmp_path / "found", evaluate=None)
    trainer.fit()
    for p, q in zip(trainer.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(p, q)
    for name in environ:
        assert name not in os.environ
    assert trainer.accelerator.gradient_accumulation_steps == 1
    assert trainer.accelerator.mixed_precision == "no"


def test_torch_multiplies_in_float32() -> None:
    """In a new process: torch reads the variable when it is first used."""
    code = (
        "from unipeft_run.training.distributed.environment import prepare_environment as p; p();"
        "import torch; from unipeft_run.training.precision import build_accelerator as b;"
        "print(torch.get_float32_matmul_precision(), b('fp32').device,"
        " torch.get_float32_matmul_precision())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **SHORTER, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "highest cpu highest\n"
