"""What is still to run of an experiment: its cells, their states, the command of each."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from unipeft_run.config import compose, resolve, run_folder
from unipeft_run.config.messages import Illegal
from unipeft_run.report.folders import Run, read_run
from unipeft_run.report.tables import Row, Table
from unipeft_run.sweeps.grid import expand_grid


def plan(name: str, words: Sequence[str]) -> Table:
    """The cells of experiment `name` under the command line `words`. Raises `UserError`."""
    _, settings, cells = expand_grid("train", [f"experiment={name}", *words])
    first: dict[str, str] = {}
    rows = [_row(row, [*settings, *cell], first) for row, cell in cells]
    done = sum(row["state"] == "done" for row in rows)
    missing = sum(bool(row["command"]) for row in rows)
    title = f"{name}: {len(rows)} cells, {done} done, {missing} to run"
    every = f"all of them: unipeft-train -m experiment={shlex.join([name, *words])}"
    return Table(title, {"experiment": name}, rows, [every] if missing else [])


def _row(row: str, words: Sequence[str], first: dict[str, str]) -> Row:
    """`first`: the row that each folder belongs to; filled here."""
    state, command = "", ""
    try:
        folder = run_folder(resolve(compose(words)))
        twin = first.setdefault(str(folder), row)
        found = read_run(folder)
        state = "done" if isinstance(found, Run) else found
        if state != "done":
            command = shlex.join(["unipeft-train", *words])
        if twin != row:
            state, command = f"the same run as {twin}", ""
    except Illegal as reason:
        state = f"illegal: {reason}"
    return {"row": row, "state": state, "command": command}
