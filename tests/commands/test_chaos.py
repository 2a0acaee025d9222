"""Real runs, killed and resumed: scripts/chaos.py in short, and a grid killed three times."""

from __future__ import annotations

import importlib.util
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
    sys.modules["chaos"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ground(chaos: Any, tmp_path: Path) -> Any:
    made = chaos.Ground(tmp_path, fork=True)
    made.prepare()
    return made


@pytest.mark.slow
def test_three_runs_killed_at_random_end_with_the_same_bits(chaos: Any, ground: Any) -> None:
    assert chaos.chaos(ground, 3, seed=1) == []
    assert sum(ground.kills.values()) >= 2


def test_the_comparison_sees_a_single_bit(chaos: Any, ground: Any) -> None:
    ground.finish(*SHORT, output="one")
    folder = ground.folder / "one"
    before = chaos.content(folder)
    assert chaos.content(folder) == before
    (delta,) = folder.glob("*/*/*/delta.safetensors")
    data = bytearray(delta.read_bytes())
    data[-1] ^= 1
    delta.write_bytes(data)
    assert chaos.content(folder)["delta.safetensors"] != before["delta.safetensors"]


@pytest.mark.slow
def test_a_grid_killed_three_times_runs_every_cell_once(chaos: Any, ground: Any) -> None:
    """12 cells; the order of methods and seeds is another one every time."""
    finished: dict[Path, int] = {}

    def ended() -> dict[Path, int]:
        found = ground.folder.glob("grid/*/*/*/metrics.json")
        return {path: path.stat().st_mtime_ns for path in found}

    def after_cells(number: int) -> Any:
        def wait(_: Path, process: Any) -> None:
            while len(ended()) < number and process.poll() is None:
                chaos.time.sleep(0.05)
            chaos.time.sleep(0.5)

        return wait

    orders = [(METHODS, (1, 2, 3, 4)), (METHODS[::-1], (4, 1, 3, 2)), (METHODS, (2, 4, 1, 3))]
    for number, (methods, seeds) in enumerate(orders):
        words = grid(methods, seeds)
        assert ground.disturb(after_cells(3 * number + 2), *words, output="grid")
        assert finished.items() <= ended().items(), "a finished cell was run again"
        finished = ended()
    text = ground.finish(*grid(METHODS, (3, 4, 2, 1)), output="grid")
    assert finished.items() <= ended().items()
    assert len(ended()) == 12
    table = [line.split() for line in text.splitlines() if line.startswith(" method=")]
    states = [state for line in table for state in line if state in ("done", "skipped")]
    assert len(states) == 12 and states.count("skipped") == len(finished)
    ends = {path: path.stat().st_mtime_ns for path in ended()}
    again = ground.finish(*grid(METHODS, (1, 2, 3, 4)), output="grid")
    assert again.count("skipped") == 12 and ended() == ends


def grid(methods: tuple[str, ...], seeds: tuple[int, ...]) -> list[str]:
    lists = (f"method={','.join(methods)}", f"seed={','.join(map(str, seeds))}")
    return ["-m", *lists, *SHORT]
