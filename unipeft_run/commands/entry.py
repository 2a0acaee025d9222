"""Shared by all commands: `--version`, `--config-dir`, exit codes, interrupts and broken pipes."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps

from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.errors import UserError
from unipeft_run.extensions import extended_by
from unipeft_run.runs.failures import explain_interrupt
from unipeft_run.runs.printable import printable_lines
from unipeft_run.training.distributed import processes
from unipeft_run.user_code import describe_bug

Main = Callable[[Sequence[str]], int]
CONFIG_DIR = ("--config-dir", "-cd")


def entry(main: Main) -> Main:
    """Wrap a command's main function, which returns an exit code and may raise UserError.

    Exit codes: 0 done; 1 a run failed; 2 user error; 128 + n interrupted by signal n.
    """

    @wraps(main)
    def run(argv: Sequence[str]) -> int:
        ignore_broken_pipes()
        try:
            rest, folders = split_config_dirs(argv)
            if "--version" in rest:
                return print_version()
            with extended_by(folders):
                return main(rest)
        except UserError as error:
            if processes.is_main():
                print(printable_lines(error), file=sys.stderr)
            return 2
        except SystemExit as end:
            if end.code:
                raise
            return 0  # argparse has printed the help
        except KeyboardInterrupt as stop:
            print(str(stop) or "interrupted", file=sys.stderr)
            return 128 + int(getattr(stop, "signum", signal.SIGINT))
        except Exception as problem:
            if not (bug := describe_bug(problem)):
                raise
            traceback.print_exc(file=sys.stderr)
            print(bug, file=sys.stderr)
            return 1

    return run


@contextmanager
def resumable(words: Sequence[str]) -> Iterator[None]:
    """Extend the message of an interrupt by how to resume the command `words`."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.args = (explain_interrupt(stop, words),)
        raise


def print_version() -> int:
    """Print the version of the package."""
    from importlib.metadata import version

    print(f"unipeft {version('unipeft')}")
    return 0


def split_config_dirs(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate `--config-dir DIR` and `--config-dir=DIR` from the other arguments."""
    rest: list[str] = []
    folders: list[str] = []
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag not in CONFIG_DIR:
            rest.append(word)
            continue
        folder = value if equals else next(words, "")
        if not folder:
            raise UserError(f"{flag} needs a folder, as in {flag} my_lab")
        folders.append(folder)
    return rest, folders
