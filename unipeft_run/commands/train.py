"""unipeft train: report a finished run at once, or else run the command in cli.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unipeft_run.commands.entry import entry
from unipeft_run.runs.plan_memory import recall, remember
from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.environment import prepare_environment


@entry
def main(argv: Sequence[str]) -> int:
    """Train and test the configured run, or a grid of runs; return the exit code."""
    prepare_environment()
    if processes.world_size() == 1 and (folder := recall(argv)):
        from unipeft_run.runs.folder import report_finished

        if report_finished(folder):
            return 0
    from unipeft_run import cli
    from unipeft_run.commands.next_steps import suggest_commands

    command = replace(cli.TRAIN, remember=remember, suggest=suggest_commands)
    return cli.main(command, argv)
