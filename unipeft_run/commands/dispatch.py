"""The command `unipeft`: a table of its commands, each imported when it is called.

`unipeft-NAME` is an alias of `unipeft NAME`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import NoReturn, cast

from unipeft_run.commands.entry import Main, entry
from unipeft_run.errors import UserError
from unipeft_run.runs.printable import printable

ALIAS = "unipeft-"
COMPLETE = "__complete"  # called by the completion scripts


@dataclass(frozen=True)
class Command:
    """A command: its one-line summary, and the function that runs its arguments."""

    summary: str
    module: str
    function: str = "main"
    listed: bool = True

    def load(self) -> Main:
        """Import the function."""
        return cast("Main", getattr(import_module(f"unipeft_run.{self.module}"), self.function))


COMMANDS = {
    "train": Command("train and test a configuration, or a grid of them", "commands.train"),
    "eval": Command("evaluate finished runs from their stored deltas", "cli", "run_evaluate"),
    "predict": Command("predict new inputs with a finished run", "commands.predict"),
    "export": Command("export a finished run for use with other libraries", "commands.export"),
    "runs": Command("list, filter and rerun runs; send them to a dashboard", "commands.runs"),
    "report": Command("make tables and figures from finished runs", "commands.report"),
    "params": Command("count the parameters of a configuration or a run", "commands.params"),
    "space": Command(
        "explore the design space: legal, equivalent, illegal points", "commands.space"
    ),
    "score": Command("score text files with a task's metrics", "commands.score"),
    "import-official": Command(
        "convert a checkpoint of the paper's code to a run", "commands.import_official"
    ),
    "export-peft": Command("export a run as a PEFT adapter", "commands.export_peft", listed=False),
    "new": Command("write a skeleton form, composition, method, task or backbone", "commands.new"),
    "completion": Command("install shell completion of commands and keys", "commands.completion"),
}


def main() -> NoReturn:
    """Run `unipeft NAME ...`, or the alias `unipeft-NAME ...`."""
    name = Path(sys.argv[0]).name
    alias = [name.removeprefix(ALIAS)] if name.startswith(ALIAS) else []
    argv = [*alias, *sys.argv[1:]]
    if argv[:1] == [COMPLETE]:
        from unipeft_run.commands.completions import print_completions

        sys.exit(print_completions(argv[1:]))
    sys.exit(run(argv))


@entry
def run(argv: Sequence[str]) -> int:
    """Run the command that `argv` names; return its exit code."""
    match list(argv):
        case [] | ["-h" | "--help" | "help"]:
            print(help_text())
            return 0
        case ["help", name, *_]:
            return find_command(name).load()(["--help"])
        case [name, *rest]:
            return find_command(name).load()(rest)
    raise AssertionError(argv)


def help_text() -> str:
    """List the commands, one line each."""
    listed = {name: command for name, command in COMMANDS.items() if command.listed}
    width = max(map(len, listed))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in listed.items()]
    return "\n".join(
        [
            "usage: unipeft COMMAND [RUN ...] [key=value ...] [--option value ...]",
            "",
            *lines,
            "",
            "unipeft COMMAND --help describes a command. Runs are named by folder or id.",
            "In every command: --config-dir DIR, --help, --version.",
        ]
    )


def find_command(name: str) -> Command:
    """Return the command called `name`. Raises UserError with the nearest name."""
    if command := COMMANDS.get(name):
        return command
    word = printable(name, 60)
    if name.startswith("-"):
        raise UserError(f"options follow the command, as in unipeft train {word} ...")
    if "=" in name:
        raise UserError(f"the command is missing; did you mean unipeft train {word} ...?")
    near = get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}"
    raise UserError(f"there is no command {word}; {hint}")
