"""Run a grid on an engine, kill one of its workers, and compare every bit with a grid run plainly.

    python scripts/engines.py joblib|ray|slurm [--grid method=mam,lora_ffn seed=1,2] [--folder DIR]

The worker that writes the first checkpoint gets SIGKILL. The one command that was typed has to end
with every cell done, and typed again has to skip them all. Slurm: scripts/slurm_ci.sh makes one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos import Ground, Process, run_folders

from unipeft_run.runs.lock import owner_of

ENGINES = {
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "ray": ("hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2"),
    "slurm": (
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.mem_gb=2",
        "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.timeout_min=30",
    ),
}
FILES = ("delta.safetensors", "delta.json", "predictions/test.jsonl")


class Grid(Ground):
    """The same tiny ground, for many runs of one command."""

    def command(self, words: Sequence[str], output: str) -> Process:
        """Start the grid; what it prints goes to OUTPUT.log."""
        return self.start("-m", *words, output=output)

    def printed(self, output: str) -> str:
        """What the grid has printed, without progress."""
        text = (self.folder / f"{output}.log").read_text()
        noise = ("it/s", "elapsed", "  loss ", "INFO", "WARNING")
        return "\n".join(line for line in text.splitlines() if not any(n in line for n in noise))


def kill_a_worker(output: Path, grid: Process) -> str:
    """SIGKILL for the process that writes the first checkpoint; which cell it had."""
    while grid.poll() is None:
        for folder in run_folders(output):
            owner = owner_of(folder)
            if owner and (folder / "checkpoints" / "last").exists():
                os.kill(owner.pid, signal.SIGKILL)
                return f"SIGKILL for process {owner.pid}, in the middle of {folder.name}"
        time.sleep(0.05)
    raise RuntimeError("the grid has ended, and no worker was killed")


def results(output: Path) -> dict[str, Any]:
    """What each run left, but for times."""
    found = {}
    for folder in run_folders(output):
        metrics = json.loads((folder / "metrics.json").read_text())
        timed = ("seconds", "per_second", "peak_memory_mib")
        plain = {key: value for key, value in metrics.items() if not key.endswith(timed)}
        found[folder.name] = (plain, *((folder / name).read_bytes() for name in FILES))
    return found


def states(table: str, state: str) -> int:
    """How many cells of the printed table are in `state`."""
    lines = (line for line in table.splitlines() if line.startswith(" method="))
    return sum(f" {state} " in line for line in lines)


def main() -> int:
    """The exit code: 1 if a cell is not done, differs, or is run twice."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--grid", nargs="+", default=["method=mam,lora_ffn", "seed=1,2"])
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as kept:
        ground = Grid((given.folder or Path(kept)).absolute())
        if not (ground.folder / "data").exists():
            ground.prepare()
        return compare(ground, given.grid, ENGINES[given.engine])


def compare(ground: Grid, grid: Sequence[str], engine: Sequence[str]) -> int:
    """Plainly, on the engine with a worker killed, and once more."""
    if ground.command(grid, "plain").wait():
        raise RuntimeError(ground.printed("plain"))
    expected = results(ground.folder / "plain")
    print(f"$ unipeft-train -m {' '.join((*grid, *engine))}", flush=True)
    process = ground.command([*grid, *engine], "engine")
    print(kill_a_worker(ground.folder / "engine", process), flush=True)
    code = process.wait()
    print(ground.printed("engine"), f"exit code {code}", sep="\n")
    found, done = results(ground.folder / "engine"), states(ground.printed("engine"), "done")
    again = ground.command([*grid, *engine], "engine").wait()
    print(ground.printed("engine"), f"exit code {again}", sep="\n")
    skipped = states(ground.printed("engine"), "skipped")
    same = sum(found.get(name) == result for name, result in expected.items())
    print(f"{done} done, {skipped} skipped the second time, {same} of {len(expected)} equal")
    return int(code or again or not done == skipped == same == len(expected))


if __name__ == "__main__":
    sys.exit(main())
