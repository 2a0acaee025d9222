"""Suggest what to do with a run that `unipeft train` has just finished."""

from __future__ import annotations

from unipeft_run.commands.shell import format_command
from unipeft_run.config import PlannedRun
from unipeft_run.data.tasks.build import build_task
from unipeft_run.runs.search import OUTPUTS


def suggest_commands(planned: PlannedRun) -> str:
    """Return one line with commands that use the run of `planned`."""
    output = planned.folder.parents[2]
    run = planned.run_id if output == OUTPUTS else str(planned.folder)
    if build_task(planned.config.task).no_predictions:
        use = ["eval", run, "--split", "validation"]
    else:
        use = ["predict", run, "FILE"]
    commands = (use, ["report", str(output)], ["export", run, "--out", "DIR"])
    first, second, third = map(format_command, commands)
    return f"next: {first}, {second}, or {third}"
