"""unipeft import-official: convert an official checkpoint. Heavy imports are inside functions."""

from __future__ import annotations

from collections.abc import Sequence

from unipeft_run.commands.arguments import Parser, expand_path
from unipeft_run.commands.entry import entry
from unipeft_run.errors import UserError
from unipeft_run.interop.options import read_options

HELP = """\
Convert a checkpoint of the paper's own code (jxhe/unify-parameter-efficient-tuning) to a run folder
that unipeft eval can evaluate."""
EPILOG = """\
unipeft import-official checkpoint-3000 --options options.json --out outputs/imported task=xsum
unipeft eval outputs/imported

The default task follows from the model: xsum for BART, wmt16_en_ro for mBART, mnli for RoBERTa with
three labels, sst2 with two. task.path=DIR and backbone.path=DIR name local data and a local model,
as for unipeft train. Pickles (pytorch_model.bin) are refused, with a command that converts."""


@entry
def main(argv: Sequence[str]) -> int:
    """Import one checkpoint; return the exit code."""
    args = _parser().parse(argv)
    options = read_options(args.options)
    if not args.checkpoint.exists():
        raise UserError(f"there is no {args.checkpoint}")
    from unipeft_run.interop.official_run import import_official

    table = import_official(
        args.checkpoint, options, args.out, args.overrides, config=args.config, force=args.force
    )
    print(f"imported {table['stored']:,} parameters ({table['stored_percent']:.2f} %)")
    print(f"unipeft eval {args.out}")
    return 0


def _parser() -> Parser:
    parser = Parser("import-official", HELP, EPILOG)
    add = parser.add_argument
    add(
        "checkpoint",
        type=expand_path,
        metavar="CHECKPOINT",
        help="model.safetensors, or the folder that holds it",
    )
    add(
        "--options",
        type=expand_path,
        required=True,
        metavar="FILE",
        help="the official tuning options as JSON or YAML, or the checkpoint's config.json",
    )
    add(
        "--out",
        type=expand_path,
        required=True,
        metavar="RUN_DIR",
        help="the run folder to write: new or empty",
    )
    add(
        "--config",
        type=expand_path,
        metavar="FILE",
        help="the model's config.json (default: the one next to the weights)",
    )
    add("--force", action="store_true", help="replace the run in RUN_DIR")
    add("overrides", nargs="*", metavar="key=value", help="as for unipeft train: task=, task.path=")
    return parser
