"""The paper's grid in miniature: run it, store it in docs/results/, write docs/results.md.

    python scripts/results trials    # run and store the missing trials, choose the rates
    python scripts/results run       # run and store the missing cells
    python scripts/results store     # store what another process has finished so far
    python scripts/results write     # docs/results.md, docs/results.html and the figures
    python scripts/results repeat    # run one cell of every table again and compare the bits

All but `repeat` and `write` resume: stored runs are restored as run folders, which count as done.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import archive
import figures
import grid
import page
import repeat
from rates import choose_rates

from unipeft_run.runs.reader import read_run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DATA = DOCS / "results"
TRIALS, RUNS = DATA / "trials.parquet", DATA / "runs.parquet"


def main() -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("trials", "run", "store", "write", "repeat"))
    parser.add_argument("--output", type=Path, default=Path("outputs/results"), help="run folders")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument(
        "--tables", nargs="+", choices=grid.TABLES, default=grid.TABLES, help="for repeat"
    )
    options = parser.parse_args()
    if options.command == "write":
        return _write()
    if options.command == "repeat":
        return repeat.repeat(archive.read_records(RUNS), options.tables)
    if options.command == "trials":
        grid.write_trials()
        code = _run(grid.RATES, [grid.TRIAL_SEED], TRIALS, options)
        grid.write_cells(choose_rates(archive.read_records(TRIALS)))
        return code
    if options.command == "run":
        return _run(grid.GRID, grid.SEEDS, RUNS, options)
    _store(grid.GRID, grid.SEEDS, RUNS, options.output)
    return 0


def _run(experiment: str, seeds: Sequence[int], file: Path, options: argparse.Namespace) -> int:
    """Run an experiment with `unipeft train`, and store it, also if it was interrupted."""
    archive.restore(archive.read_records(file), options.output)
    command = [str(Path(sys.executable).parent / "unipeft"), "train", "-m"]
    command += [f"experiment={experiment}", "scale=mini", f"seed={','.join(map(str, seeds))}"]
    command += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={options.jobs}"]
    command += [f"output={options.output}", "tracking.wandb=null"]
    try:
        return subprocess.run(command, check=False).returncode
    finally:
        _store(experiment, seeds, file, options.output)


def _store(experiment: str, seeds: Sequence[int], file: Path, output: Path) -> None:
    """Add the runs of an experiment that ended to `file`."""
    stored = {record.run_id: record for record in archive.read_records(file)}
    for cell, planned, _ in grid.plan_runs(experiment, seeds, output):
        if planned.run_id not in stored and planned.folder.is_dir():
            run = read_run(planned.folder)
            if run.state in ("done", "diverged"):
                stored[planned.run_id] = archive.make_record(run, cell)
    archive.write_records(file, stored.values())
    print(f"{file}: {len(stored)} runs")


def _write() -> int:
    records = archive.read_records(RUNS)
    (DOCS / "results.md").write_text(page.render(DATA), encoding="utf-8")
    figures.draw(page.group_by_cell(records), DOCS / "figures")
    (DOCS / "results.html").write_text(figures.render_html(records), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
