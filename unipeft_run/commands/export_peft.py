"""unipeft-export-peft: export a run's LoRA for PEFT. Heavy imports are inside functions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from unipeft_run import config as configuration
from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.errors import UserError
from unipeft_run.runs.printable import printable_lines

HELP = """\
Write the LoRA of a run as a folder that peft.PeftModel.from_pretrained(backbone, DIR) loads. Deltas
that PEFT cannot express are refused, with the reason."""


def command() -> NoReturn:
    """Run unipeft-export-peft."""
    ignore_broken_pipes()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Export one run; return the exit code: 0, or 2 for a user error."""
    args = _parser().parse_args(argv)
    try:
        backbone = configuration.load(args.run).backbone
        from unipeft_run.deltas.build import load_run
        from unipeft_run.interop.peft import export_peft

        base = backbone.path or backbone.hub
        export_peft(load_run(args.run), args.out, base, force=args.force)
    except UserError as error:
        print(printable_lines(error), file=sys.stderr)
        return 2
    print(f"peft.PeftModel.from_pretrained(backbone, {str(args.out)!r})")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("unipeft-export-peft", description=HELP)
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="the folder of a finished run")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the folder to write: new or empty"
    )
    parser.add_argument("--force", action="store_true", help="replace the adapter in DIR")
    return parser
