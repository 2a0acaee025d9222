"""Training and decoder steps on a device that has CUDA's rules, but no values."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from attached_models import METHODS

SUPPORT = Path(__file__).parents[1] / "support"
TORCH = Path(torch.__file__).parent
CACHED = [method for method in METHODS if method != "unipelt"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the stand-in."""
    path = tmp_path_factory.mktemp("gpu") / "stand_in_gpu.so"
    include, lib = TORCH / "include", TORCH / "lib"
    command = ["g++", "-std=c++20", "-shared", "-fPIC", f"-I{include}"]
    command += [str(SUPPORT / "stand_in_gpu.cpp"), f"-L{lib}", f"-Wl,-rpath,{lib}"]
    command += ["-Wl,--no-as-needed", "-lc10", "-ltorch_cpu", "-o", str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.mark.parametrize(
    ("kind", "setting", "family", "methods"),
    [
        ("train", "bf16", "bart", METHODS),
        ("train", "bf16", "roberta", METHODS),
        ("train", "fp32", "mbart", ["mam", "full", "prompt", "mh_parallel"]),
        ("generate", "3", "bart", CACHED),
        ("generate", "1", "mbart", ["mam", "prefix", "prompt", "houlsby"]),
    ],
)
def test_methods(library: Path, kind: str, setting: str, family: str, methods: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{SUPPORT.parents[1]}{os.pathsep}{SUPPORT}"}
    command = [sys.executable, "-W", "ignore", SUPPORT / "stand_in_gpu.py", library]
    done = subprocess.run(
        [*command, kind, setting, family, *methods],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-100:] + done.stderr
    assert done.stdout.split() == list(methods)
