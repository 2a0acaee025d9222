"""The console command unipeft-report. Reads run folders; changes nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from unipeft_run.errors import UserError

HELP = """\
Tables from run folders: methods by what they reach on the test split, and what they cost."""


def report() -> NoReturn:
    """unipeft-report."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """The exit code: 0, or 2 where something named is not there."""
    try:
        return _report(argv)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        sys.stderr.close()
        return 0


def _report(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    from unipeft_run.report.folders import read_runs
    from unipeft_run.report.render import FORMATS
    from unipeft_run.report.tables import tables

    runs, left = read_runs(args.folders)
    if runs:
        print(FORMATS[args.format](tables(runs)))
    for line in left:
        print(f"left out: {line}", file=sys.stderr)
    if not runs:
        print("no finished run yet", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("unipeft-report", description=HELP)
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="runs, or what holds them: outputs"
    )
    parser.add_argument("--format", choices=("text", "markdown", "csv"), default="text")
    return parser
