"""Run one cell of every table again, from scratch, and compare it with the stored record."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from archive import Record, describe_machine, make_record
from grid import GRID, cell_of, plan_runs, read_experiments

from unipeft_run.runs.reader import read_run

TIMES = ("seconds", "per_second", "memory")  # in the names of metrics that differ between runs


def repeat(records: Sequence[Record], tables: Sequence[str]) -> int:
    """Repeat a run of each of `tables`; return 1 if one differs on the same kind of machine."""
    here, differing = describe_machine(), 0
    for record, names in choose(records, tables):
        with TemporaryDirectory(prefix="unipeft-") as folder:
            problems = compare(record, Path(folder))
        known = record.machine == here
        other = "" if known else f" (stored on {record.machine}; this is {here})"
        found = "; ".join(problems) or "the same bits"
        print(f"{', '.join(names)}: {record.cell} seed={record.seed}: {found}{other}", flush=True)
        differing += known and bool(problems)
    return int(differing > 0)


def choose(records: Sequence[Record], tables: Sequence[str]) -> Iterator[tuple[Record, list[str]]]:
    """Yield stored runs that cover every table and task, the widest first, and what each covers."""
    left = {
        f"{experiment.name} {task}": {cell_of(c).name for c in experiment.cells if c.task == task}
        for experiment in read_experiments()
        for task in experiment.metrics
        if experiment.name in tables
    }
    while left:
        best = max(records, key=lambda r: sum(r.cell in cells for cells in left.values()))
        covered = [table for table, cells in left.items() if best.cell in cells]
        if not covered:
            return
        yield best, covered
        for table in covered:
            del left[table]


def compare(record: Record, output: Path) -> list[str]:
    """Run the cell of `record` below `output`, in one thread; return what differs."""
    planned = {cell: (run, line) for cell, run, line in plan_runs(GRID, [record.seed], output)}
    run, overrides = planned[record.cell]
    if run.run_id != record.run_id:
        return [f"its configuration has changed: run {run.run_id}, was {record.run_id}"]
    command = [str(Path(sys.executable).parent / "unipeft"), "train", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"exit code {done.returncode}: {done.stderr.strip()[-500:]}"]
    return list_differences(record, make_record(read_run(run.folder), record.cell))


def list_differences(first: Record, second: Record) -> list[str]:
    """List what differs between two runs of a cell, apart from times and memory."""
    names = [name for name in first.scores if not any(word in name for word in TIMES)]
    found = [
        f"{name}: {first.scores[name]!r}, now {second.scores.get(name)!r}"
        for name in names
        if first.scores[name] != second.scores.get(name)
    ]
    found += ["the weights differ"] * (first.weights != second.weights)
    return found + ["scores of examples differ"] * (first.statistics != second.statistics)
