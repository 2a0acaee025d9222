"""Run one cell of every table again, from scratch, and compare it with the stored record."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from archive import Record, make_record
from grid import GRID, cell_of, plan_runs, read_experiments

from unipeft_run.runs.reader import read_run

TIMES = ("seconds", "per_second", "memory")  # in the names of metrics that differ between runs
VERSIONS = ("torch", "transformers")  # metrics that `Record.machine` covers


def table_names() -> list[str]:
    """List the tables and figures with each of their tasks, as in table6_xsum."""
    return [f"{table.name}_{task}" for table in read_experiments() for task in table.metrics]


def repeat(records: Sequence[Record], tables: Sequence[str]) -> int:
    """Repeat a run of each of `tables`; return 1 if one differs, fails or is not stored.

    On another kind of machine, and with a later version of the data, differences do not count.
    """
    finished = [record for record in records if record.state == "done"]
    chosen, failed = list(choose(finished, tables)), 0
    for record, names in chosen:
        with TemporaryDirectory(prefix="unipeft-") as folder:
            again = rerun(record, Path(folder))
        conditions = [] if isinstance(again, str) else list_conditions(record, again)
        problems = [again] if isinstance(again, str) else list_differences(record, again)
        found = "; ".join([*conditions, *problems]) or "bitwise identical"
        print(f"{', '.join(names)}: {record.cell} seed={record.seed}: {found}", flush=True)
        failed += bool(problems) and not conditions
    missing = set(tables) - {name for _, names in chosen for name in names}
    for name in sorted(missing):
        print(f"{name}: no run is stored")
    return int(failed > 0 or bool(missing))


def choose(records: Sequence[Record], tables: Sequence[str]) -> Iterator[tuple[Record, list[str]]]:
    """Yield few stored runs that cover the tables, and the tables that each covers."""
    left = {
        name: {cell_of(cell).name for cell in table.cells if cell.task == task}
        for table in read_experiments()
        for task in table.metrics
        if (name := f"{table.name}_{task}") in tables
    }
    while left and records:
        best = max(records, key=lambda r: sum(r.cell in cells for cells in left.values()))
        covered = [table for table, cells in left.items() if best.cell in cells]
        if not covered:
            return
        yield best, covered
        for table in covered:
            del left[table]


def rerun(record: Record, output: Path) -> Record | str:
    """Run the cell of `record` below `output`, in one thread; return its record, or the error."""
    planned = {cell: (run, line) for cell, run, line in plan_runs(GRID, [record.seed], output)}
    run, overrides = planned[record.cell]
    if run.run_id != record.run_id:
        return f"its configuration has changed: run {run.run_id}, was {record.run_id}"
    command = [str(Path(sys.executable).parent / "unipeft"), "train", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"exit code {done.returncode}: {done.stderr.strip()[-500:]}"
    return make_record(read_run(run.folder), record.cell)


def list_conditions(first: Record, second: Record) -> list[str]:
    """List the reasons why two runs need not be bitwise identical."""
    found = []
    if first.machine != second.machine:
        found.append(f"stored on another machine ({first.machine}; this is {second.machine})")
    if first.examples != second.examples:
        found.append("the data has changed since: other test examples")
    return found


def list_differences(first: Record, second: Record) -> list[str]:
    """List what differs between two runs of a cell, apart from times, memory and versions."""
    timed = {name for name in first.scores if any(word in name for word in TIMES)}
    found = [
        f"{name}: {value!r}, now {second.scores.get(name)!r}"
        for name, value in first.scores.items()
        if name not in (*timed, *VERSIONS) and value != second.scores.get(name)
    ]
    found += ["the weights differ"] * (first.weights != second.weights)
    return found + ["scores of examples differ"] * (first.statistics != second.statistics)
