"""Run a grid on an engine, kill a worker, and compare every bit with the grid run in one process.

    python scripts/engines.py joblib|ray|slurm [--grid method=mam,lora_ffn seed=1,2] [--folder DIR]

The worker that writes the first checkpoint gets SIGKILL. The command must still finish every cell,
and must skip them all when it is repeated. scripts/slurm_ci.sh sets up Slurm for it.
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

from chaos import Process, Sandbox, drop_times, find_run_folders

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


class GridSandbox(Sandbox):
    """A sandbox for grids: many runs by one command."""

    def start_grid(self, overrides: Sequence[str], output: str) -> Process:
        """Start the grid; it prints to OUTPUT.log."""
        return self.start("-m", *overrides, output=output)

    def read_log(self, output: str) -> str:
        """Return what the grid printed, without progress lines."""
        text = (self.folder / f"{output}.log").read_text()
        noise = ("it/s", "elapsed", "  loss ", "INFO", "WARNING")
        return "\n".join(line for line in text.splitlines() if not any(n in line for n in noise))


def kill_a_worker(output: Path, grid: Process) -> str:
    """Send SIGKILL to the process that writes the first checkpoint; return a line about it."""
    while grid.poll() is None:
        for folder in find_run_folders(output):
            owner = owner_of(folder)
            if owner and (folder / "checkpoints" / "last").exists():
                os.kill(owner.pid, signal.SIGKILL)
                return f"sent SIGKILL to process {owner.pid}, which was running {folder.name}"
        time.sleep(0.05)
    raise RuntimeError("the grid ended before a worker could be killed")


def read_grid(output: Path) -> dict[str, Any]:
    """Return the results of each run, without times."""
    found = {}
    for folder in find_run_folders(output):
        metrics = drop_times(json.loads((folder / "metrics.json").read_text()))
        found[folder.name] = (metrics, *((folder / name).read_bytes() for name in FILES))
    return found


def count_cells(table: str, state: str) -> int:
    """Count the cells of the printed table that are in `state`."""
    lines = (line for line in table.splitlines() if line.startswith("method="))
    return sum(f" {state} " in line for line in lines)


def main() -> int:
    """Return 1 if a cell is not done, differs, or is run twice."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--grid", nargs="+", default=["method=mam,lora_ffn", "seed=1,2"])
    parser.add_argument("--folder", type=Path, help="work here and keep everything")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as kept:
        sandbox = GridSandbox((given.folder or Path(kept)).absolute())
        if not (sandbox.folder / "data").exists():
            sandbox.prepare()
        return compare(sandbox, given.grid, ENGINES[given.engine])


def compare(sandbox: GridSandbox, grid: Sequence[str], engine: Sequence[str]) -> int:
    """Run the grid without an engine, on it with a worker killed, and on it again."""
    if sandbox.start_grid(grid, "plain").wait():
        raise RuntimeError(sandbox.read_log("plain"))
    expected = read_grid(sandbox.folder / "plain")
    print(f"$ unipeft-train -m {' '.join((*grid, *engine))}", flush=True)
    process = sandbox.start_grid([*grid, *engine], "engine")
    print(kill_a_worker(sandbox.folder / "engine", process), flush=True)
    code = process.wait()
    print(sandbox.read_log("engine"), f"exit code {code}", sep="\n")
    found, done = (
        read_grid(sandbox.folder / "engine"),
        count_cells(sandbox.read_log("engine"), "done"),
    )
    again = sandbox.start_grid([*grid, *engine], "engine").wait()
    print(sandbox.read_log("engine"), f"exit code {again}", sep="\n")
    skipped = count_cells(sandbox.read_log("engine"), "skipped")
    same = sum(found.get(name) == result for name, result in expected.items())
    print(f"{done} done, {skipped} skipped when repeated, {same} of {len(expected)} identical")
    return int(code or again or not done == skipped == same == len(expected))


if __name__ == "__main__":
    sys.exit(main())
