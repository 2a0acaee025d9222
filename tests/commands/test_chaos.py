"""Real runs, killed and resumed: a short scripts/chaos.py, and a grid killed three times."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "chaos.py"
METHODS = ("mam", "lora_ffn", "bitfit")
SHORT = ("recipe.max_steps=6", "recipe.eval_every=3", "recipe.checkpoint_every=2")


@pytest.fixture(scope="module")
def chaos() -> Any:
    spec = importlib.util.spec_from_file_location("chaos", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["chaos"] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sandbox(chaos: Any, tmp_path: Path) -> Any:
    made = chaos.Sandbox(tmp_path, fork=True)
    made.prepare()
    return made


@pytest.mark.slow
def test_runs_killed_at_random_end_bit_identical(chaos: Any, sandbox: Any) -> None:
    assert chaos.disturb_runs(sandbox, 3, seed=1) == []
    assert sum(sandbox.kills.values()) >= 2


@pytest.mark.slow
def test_the_script_finds_its_support_modules(tmp_path: Path) -> None:
    code = f"import chaos; chaos.Sandbox(chaos.Path({str(tmp_path)!r})).prepare()"
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert (tmp_path / "data" / "train.jsonl").exists()


def test_the_comparison_detects_a_single_bit(chaos: Any, sandbox: Any) -> None:
    sandbox.finish(*SHORT, output="one")
    folder = sandbox.folder / "one"
    before = chaos.read_results(folder)
    assert chaos.read_results(folder) == before
    (delta,) = folder.glob("*/*/*/delta.safetensors")
    data = bytearray(delta.read_bytes())
    data[-1] ^= 1
    delta.write_bytes(data)
    assert chaos.read_results(folder)["delta.safetensors"] != before["delta.safetensors"]


@pytest.mark.slow
def test_a_grid_killed_three_times_runs_every_cell_once(chaos: Any, sandbox: Any) -> None:
    """12 cells, with the methods and seeds in a different order each time."""
    finished: dict[Path, int] = {}

    def finished_cells() -> dict[Path, int]:
        found = sandbox.folder.glob("grid/*/*/*/metrics.json")
        return {path: path.stat().st_mtime_ns for path in found}

    def after_cells(number: int) -> Any:
        def wait(_: Path, process: Any) -> None:
            while len(finished_cells()) < number and process.poll() is None:
                chaos.time.sleep(0.05)
            chaos.time.sleep(0.5)

        return wait

    orders = [(METHODS, (1, 2, 3, 4)), (METHODS[::-1], (4, 1, 3, 2)), (METHODS, (2, 4, 1, 3))]
    for number, (methods, seeds) in enumerate(orders):
        overrides = grid(methods, seeds)
        assert sandbox.disturb(after_cells(3 * number + 2), *overrides, output="grid")
        assert finished.items() <= finished_cells().items(), "a finished cell was run again"
        finished = finished_cells()
    text = sandbox.finish(*grid(METHODS, (3, 4, 2, 1)), output="grid")
    assert finished.items() <= finished_cells().items()
    assert len(finished_cells()) == 12
    table = [line.split() for line in text.splitlines() if line.startswith("method=")]
    states = [state for line in table for state in line if state in ("done", "skipped")]
    assert len(states) == 12 and states.count("skipped") == len(finished)
    ends = {path: path.stat().st_mtime_ns for path in finished_cells()}
    again = sandbox.finish(*grid(METHODS, (1, 2, 3, 4)), output="grid")
    assert again.count("skipped") == 12 and finished_cells() == ends


def grid(methods: tuple[str, ...], seeds: tuple[int, ...]) -> list[str]:
    lists = (f"method={','.join(methods)}", f"seed={','.join(map(str, seeds))}")
    return ["-m", *lists, *SHORT]
