"""The paper's grid in miniature: run it, store it in docs/results/, write docs/results.md.

    python scripts/results trials    # run and store the missing trials, choose the rates
    python scripts/results run       # run and store the missing cells
    python scripts/results store     # store what another process has finished so far
    python scripts/results write     # docs/results.md, docs/results.html and the figures
    python scripts/results repeat    # run one cell of every table again and compare the bits

`trials` and `run` resume: stored runs are restored as run folders, which count as done.
"""

from __future__ import annotations

import argparse
import os
import signal
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

DOCS = Path(__file__).parents[2] / "docs"
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
    names = repeat.table_names()
    parser.add_argument("--tables", nargs="+", choices=names, default=names, metavar="NAME",
                        help=f"of repeat: {', '.join(names)}")  # fmt: skip
    options = parser.parse_args()
    if options.command == "write":
        return _write()
    if options.command == "repeat":
        return repeat.repeat(archive.read_records(RUNS), options.tables)
    if options.command == "trials":
        return _run_trials(options)
    if options.command == "run":
        return _run(grid.GRID, grid.SEEDS, RUNS, options)
    store(grid.GRID, grid.SEEDS, RUNS, options.output)
    return 0


def _run_trials(options: argparse.Namespace) -> int:
    """Run the missing trials; choose the rates if none is left, though some may have diverged."""
    grid.write_trials()
    code = _run(grid.RATES, [grid.TRIAL_SEED], TRIALS, options)
    records = archive.read_records(TRIALS)
    planned = grid.plan_runs(grid.RATES, [grid.TRIAL_SEED], options.output)
    if {run.run_id for _, run, _ in planned} <= {record.run_id for record in records}:
        grid.write_cells(choose_rates(records))
        return 0
    return code


def _run(experiment: str, seeds: Sequence[int], file: Path, options: argparse.Namespace) -> int:
    """Run an experiment with `unipeft train`, and store what has finished when it ends."""
    archive.restore(archive.read_records(file), options.output)
    command = [str(Path(sys.executable).parent / "unipeft"), "train", "-m"]
    command += [f"experiment={experiment}", "scale=mini", f"seed={','.join(map(str, seeds))}"]
    command += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={options.jobs}"]
    command += [f"output={options.output}", "tracking.wandb=null"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child has received it, and saves its runs
    code = process.wait()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    store(experiment, seeds, file, options.output)
    return code


def store(experiment: str, seeds: Sequence[int], file: Path, output: Path) -> None:
    """Write the stored and the finished runs of an experiment to `file`; drop all others."""
    stored = {record.run_id: record for record in archive.read_records(file)}
    kept = {}
    for cell, planned, _ in grid.plan_runs(experiment, seeds, output):
        record = stored.get(planned.run_id)
        if (record is None or record.state != "done") and planned.folder.is_dir():
            run = read_run(planned.folder)
            if run.state in ("done", "diverged"):
                record = archive.make_record(run, cell)
        if record:
            kept[planned.run_id] = record
    archive.write_records(file, kept.values())
    print(f"{file}: {len(kept)} runs")


def _write() -> int:
    records = archive.read_records(RUNS)
    (DOCS / "results.md").write_text(page.render(DATA), encoding="utf-8")
    figures.draw(page.group_by_cell(records), DOCS / "figures")
    (DOCS / "results.html").write_text(figures.render_html(records), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
