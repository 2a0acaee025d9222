"""Runs on two processes equal runs on one, with DDP and FSDP2, and are written once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import tiny_processes
import torch
from safetensors.torch import load_file
from tiny_recipe import write

from unipeft_run.data.batching import process_part


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_batch_is_split_evenly(count: int) -> None:
    batch = list(range(7))
    parts = [process_part(batch, rank, count) for rank in range(count)]
    assert sorted(chain(*parts)) == batch
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_smaller_than_the_number_of_processes_is_replicated() -> None:
    assert [process_part([4, 5], rank, 3) for rank in range(3)] == [[4, 5]] * 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folders of runs on one process and on two."""
    base = tmp_path_factory.mktemp("processes")
    os.environ["UNIPEFT_CACHE"] = str(base / "cache")
    inputs, one, two = (base / name for name in ("inputs", "one", "two"))
    inputs.mkdir()
    write(inputs)
    assert not any(tiny_processes.run(case, inputs, one) for case in tiny_processes.CASES)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launch, tiny_processes.__file__, str(inputs), str(two)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return one, two


def run_in(folder: Path, case: str) -> Path:
    (run,) = (folder / case).glob("*/*/*/config.yaml")
    return run.parent


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("case", tiny_processes.CASES)
def test_two_processes_equal_one(folders: tuple[Path, Path], case: str) -> None:
    one, two = (run_in(folder, case) for folder in folders)
    expected, found = (load_file(run / "delta.safetensors") for run in (one, two))
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=2e-6)
    assert [r["step"] for r in records(two)] == [r["step"] for r in records(one)]
    for mine, theirs in zip(records(two), records(one), strict=True):
        for name in theirs.keys() & {"train/loss", "train/grad_norm", "validation/loss"}:
            assert mine[name] == pytest.approx(theirs[name], rel=1e-5), name
    first, second = (json.loads((run / "metrics.json").read_text()) for run in (one, two))
    assert second["test/loss"] == pytest.approx(first["test/loss"], rel=1e-5)
    rows = [(run / "predictions" / "test.jsonl").read_text() for run in (one, two)]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(folders: tuple[Path, Path]) -> None:
    uninterrupted, resumed = (run_in(folders[1], name) for name in ("uninterrupted", "resumed"))
    expected, found = (load_file(run / "delta.safetensors") for run in (uninterrupted, resumed))
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
    losses = [[r.get("train/loss") for r in records(run)] for run in (uninterrupted, resumed)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_processes_2_starts_two_processes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    one, _ = folders
    script = str(Path(sys.executable).with_name("unipeft-train"))
    given = tiny_processes.overrides_of("bitfit", one.parent / "inputs", tmp_path)
    done = subprocess.run([script, *given, "processes=2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder") == 1
    paths = [run_in(folder, "bitfit") / "predictions" / "test.jsonl" for folder in (one, tmp_path)]
    assert paths[0].read_text() == paths[1].read_text()
