"""Parse the arguments of console commands, and turn user errors into exit codes."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.errors import UserError
from unipeft_run.runs.printable import printable, printable_lines


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{printable(message)}; see {self.prog} --help")


def run_command(command: Callable[[Sequence[str]], int]) -> NoReturn:
    """Call `command` with this process's command line and exit with the exit code it returns."""
    ignore_broken_pipes()
    sys.exit(command(sys.argv[1:]))


def exit_code(work: Callable[[], None]) -> int:
    """Call `work`; return 0, 2 for a user error, or 128 + n if signal n interrupted it."""
    try:
        work()
    except UserError as error:
        print(printable_lines(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return 128 + getattr(stop, "signum", signal.SIGINT)
    return 0


def parse_overrides(words: Sequence[str]) -> Mapping[str, Any]:
    """Parse `key=value` words; values are typed as in YAML. Raises UserError for another word."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    overrides = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise UserError(f"{printable(word)} is not understood; overrides look like key=value")
        try:
            value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
        except (OmegaConfBaseException, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{printable(word)}: {printable(reason, 120)}") from None
        assert isinstance(value, dict)
        overrides[key] = value["value"]
    return overrides
