"""unipeft-export-peft: unipeft-export with --format peft as the default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from unipeft_run.commands import export
from unipeft_run.commands.arguments import run_command


def command() -> NoReturn:
    """Run unipeft-export-peft."""
    run_command(main)


def main(argv: Sequence[str]) -> int:
    """Export one run; return the exit code."""
    return export.main(argv, "unipeft-export-peft", "peft")
