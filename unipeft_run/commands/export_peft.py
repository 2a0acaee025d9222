"""The console command unipeft-export-peft. Imports nothing heavy at the top."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from unipeft_run import config as configuration
from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.errors import UserError

HELP = """\
The LoRA of a run as a folder that peft.PeftModel.from_pretrained(backbone, DIR) loads. What PEFT
cannot express is refused, with the reason."""


def command() -> NoReturn:
    """unipeft-export-peft."""
    ignore_broken_pipes()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """The exit code: 0, or 2 where something cannot be exported."""
    args = _parser().parse_args(argv)
    try:
        backbone = configuration.load(args.run)["backbone"]
        from unipeft_run.interop.peft import export_peft
        from unipeft_run.interop.stored_run import load_run

        export_peft(load_run(args.run), args.out, backbone["path"] or backbone["hub"])
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"peft.PeftModel.from_pretrained(backbone, {str(args.out)!r})")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("unipeft-export-peft", description=HELP)
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="the folder of a finished run")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    return parser
