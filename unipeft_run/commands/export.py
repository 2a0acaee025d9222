"""unipeft export: write a run to a folder that others can load. Heavy imports are in functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unipeft_run.commands.arguments import Parser, expand_path, parse_overrides
from unipeft_run.commands.entry import entry
from unipeft_run.config.messages import unknown_key
from unipeft_run.errors import UserError
from unipeft_run.interop.target import check_export_target

if TYPE_CHECKING:
    from unipeft_run.config import RunConfig

HELP = """\
Export a finished run to a folder:
  merged  a model folder that transformers loads with from_pretrained, where the method can be
          merged into the weights: LoRA, BitFit, full fine-tuning
  delta   the backbone, the delta and load.py, which loads them with unipeft: every method
  peft    only the adapter: LoRA, or a method peft/..., for peft.PeftModel.from_pretrained
  auto    merged if that is possible, else delta; peft for the methods peft/..."""
EPILOG = """\
unipeft export outputs/xsum/lora_ffn/ab12cd34 --out my-summariser
unipeft export ab12 --out my-summariser --format delta

backbone.path=DIR names the backbone's current folder, for a run copied from elsewhere."""
AUTO = {  # kind of a task -> the class of transformers that loads a merged model
    "seq2seq": "AutoModelForSeq2SeqLM",
    "causal": "AutoModelForCausalLM",
    "classification": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "image_classification": "AutoModelForImageClassification",
    "retrieval": "AutoModel",
}
FORMATS = ("auto", "merged", "delta", "peft")


@entry
def main(argv: Sequence[str]) -> int:
    """Export one run; return the exit code."""
    return export(argv)


def export(argv: Sequence[str], name: str = "export", kind: str = "auto") -> int:
    """Export one run. `name`: the command's name; `kind`: the default of --format."""
    args = _parser(name, kind).parse(argv)
    overrides = parse_overrides(args.overrides)
    for key in overrides:
        if key != "backbone.path":
            raise UserError(unknown_key(key, ["backbone.path"]))
    check_export_target(args.out, force=args.force)
    from unipeft_run.inference.stored_run import open_run

    run = open_run(args.run, allow=args.allow, backbone_path=overrides.get("backbone.path"))
    run.locate_backbone()
    from unipeft_run.inference.export import choose_kind, export_run

    chosen = choose_kind(run.config, args.format)
    export_run(run, args.out, chosen)
    print(f"{args.out}: {chosen}, {_loading(run.config, chosen, args.out)}")
    return 0


def _parser(name: str, kind: str) -> Parser:
    parser = Parser(name, HELP, EPILOG)
    parser.add_runs("run")
    parser.add_argument("overrides", nargs="*", default=[], metavar="backbone.path=DIR")
    parser.add_argument("--out", type=expand_path, required=True, metavar="DIR",
                        help="the folder to write: new or empty")  # fmt: skip
    parser.add_argument("--format", choices=FORMATS, default=kind, help=f"default: {kind}")
    parser.add_argument("--force", action="store_true", help="replace an earlier export in DIR")
    parser.add_allow()
    return parser


def _loading(config: RunConfig, kind: str, out: Path) -> str:
    """Return the expression that loads an export."""
    if kind == "peft":
        return f"peft.PeftModel.from_pretrained(backbone, {str(out)!r})"
    from unipeft_run.data.tasks.build import build_task
    from unipeft_run.inference.loader import list_arguments

    task = build_task(config.task)
    if kind == "delta":
        arguments = list_arguments(task)
        script = f"python {out / 'load.py'} {arguments}"
        return script if arguments else f"unipeft.load_run({str(out)!r})"
    auto = AUTO[task.kind]
    return f"transformers.{auto}.from_pretrained({str(out)!r})"
