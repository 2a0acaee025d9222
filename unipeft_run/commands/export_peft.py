"""unipeft export-peft: write a run's LoRA for PEFT. Heavy imports are inside functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unipeft_run import config as configuration
from unipeft_run.commands.arguments import Parser
from unipeft_run.commands.entry import entry

HELP = """\
Write the LoRA of a run as a folder that peft.PeftModel.from_pretrained(backbone, DIR) loads. Deltas
that PEFT cannot express are refused, with the reason."""


@entry
def main(argv: Sequence[str]) -> int:
    """Export one run; return the exit code."""
    args = _parser().parse(argv)
    backbone = configuration.load(args.run, args.allow).backbone
    from unipeft_run.deltas.build import load_run
    from unipeft_run.interop.peft import export_peft

    base = backbone.path or backbone.hub
    export_peft(load_run(args.run, args.allow), args.out, base, force=args.force)
    print(f"peft.PeftModel.from_pretrained(backbone, {str(args.out)!r})")
    return 0


def _parser() -> Parser:
    parser = Parser("export-peft", HELP)
    parser.add_runs("run")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the folder to write: new or empty"
    )
    parser.add_argument("--force", action="store_true", help="replace the adapter in DIR")
    parser.add_allow()
    return parser
