"""The console command unipeft-import-official. Imports nothing heavy at the top."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.errors import UserError
from unipeft_run.interop.options import read_options

HELP = """\
A checkpoint of the paper's own code (jxhe/unify-parameter-efficient-tuning) as a run folder, which
unipeft-eval evaluates."""
EPILOG = """\
unipeft-import-official checkpoint-3000 --options options.json --out outputs/imported task=xsum
unipeft-eval run=outputs/imported

The task follows from the model where none is given: BART xsum, mBART wmt16_en_ro, RoBERTa mnli with
three labels and sst2 with two. task.path=DIR and backbone.path=DIR name local data and a local
model, as for unipeft-train."""


def command() -> NoReturn:
    """unipeft-import-official."""
    ignore_broken_pipes()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """The exit code: 0, or 2 where something cannot be taken."""
    args = _parser().parse_intermixed_args(argv)
    try:
        options = read_options(args.options)
        if not args.checkpoint.exists():
            raise UserError(f"there is no {args.checkpoint}")
        from unipeft_run.interop.checkpoints import import_official

        table = import_official(
            args.checkpoint, options, args.out, args.words, config=args.config, force=args.force
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"imported {table['stored']:,} parameters ({table['stored_percent']:.2f} %)")
    print(f"unipeft-eval run={args.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "unipeft-import-official", description=HELP, epilog=EPILOG, formatter_class=raw
    )
    add = parser.add_argument
    add(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="pytorch_model.bin or model.safetensors, or the folder that holds it",
    )
    add(
        "--options",
        type=Path,
        required=True,
        metavar="FILE",
        help="the official tune options, JSON or YAML; the checkpoint's config.json serves too",
    )
    add("--out", type=Path, required=True, metavar="RUN_DIR", help="the run folder to write")
    add(
        "--config",
        type=Path,
        metavar="FILE",
        help="the model's config.json; by default the one beside the weights",
    )
    add("--force", action="store_true", help="write over a run that is there")
    add("words", nargs="*", metavar="key=value", help="as for unipeft-train: task=, task.path=")
    return parser
