"""Plan an experiment: list its cells, their states, and the command of each missing one."""

from __future__ import annotations

from collections.abc import Sequence

from unipeft_run.commands.shell import format_command
from unipeft_run.config import compose, normalise_overrides, plan
from unipeft_run.config.messages import Illegal
from unipeft_run.report.tables import Row, Table
from unipeft_run.runs.reader import read_run
from unipeft_run.sweeps.grid import expand_grid
from unipeft_run.sweeps.table import label_rows


def plan_experiment(name: str, overrides: Sequence[str]) -> Table:
    """Tabulate the cells of experiment `name` under `overrides`. Raises `UserError`."""
    words = [f"experiment={name}", *overrides]
    _, settings, cells = expand_grid("train", normalise_overrides(words))
    owners: dict[str, str] = {}
    rows = [
        _make_row(label, [*settings, *cell], owners)
        for label, (_, cell) in zip(label_rows(cells), cells, strict=True)
    ]
    done = sum(row["state"] == "done" for row in rows)
    missing = sum(bool(row["command"]) for row in rows)
    count = f"{len(rows)} cell{'s' * (len(rows) != 1)}"
    title = f"{name}: {count}, {done} done, {missing} to run"
    run_all = f"to run all of them: {format_command(['train', '-m', *words])}"
    return Table(title, {"experiment": name}, rows, [run_all] if missing else [])


def _make_row(row: str, overrides: Sequence[str], owners: dict[str, str]) -> Row:
    """Make the row of a cell. `owners` maps run folders to their rows, and is extended."""
    state, command = "", ""
    try:
        folder = plan(compose(overrides)).folder
        owner = owners.setdefault(str(folder), row)
        run = read_run(folder) if folder.is_dir() else None
        state = (run.reason_left_out or "done") if run else "missing"
        if run is None or not (run.metrics or run.state == "running"):
            command = format_command(["train", *overrides])
        if owner != row:
            state, command = f"the same run as {owner}", ""
    except Illegal as reason:
        state = f"illegal: {reason}"
    return {"row": row, "state": state, "command": command}
