"""unipeft export-peft: unipeft export with --format peft as the default."""

from __future__ import annotations

from collections.abc import Sequence

from unipeft_run.commands.entry import entry
from unipeft_run.commands.export import export


@entry
def main(argv: Sequence[str]) -> int:
    """Export one run; return the exit code."""
    return export(argv, "export-peft", "peft")
