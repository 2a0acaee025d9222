"""unipeft predict: predictions of a finished run for new inputs. Heavy imports are in functions."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipeft_run.commands.arguments import Parser, expand_path, parse_overrides
from unipeft_run.commands.entry import entry
from unipeft_run.config.messages import unknown_key
from unipeft_run.config.schema import DecodingConfig
from unipeft_run.errors import UserError

if TYPE_CHECKING:
    from unipeft_run.inference.input_table import InputTable
    from unipeft_run.inference.prediction_file import PredictionFile
    from unipeft_run.inference.predictor import Predictor
    from unipeft_run.inference.stored_run import StoredRun

HELP = """\
Predict with a finished run: a text or a class for every row of FILE. The rows are written with all
their columns and a column `prediction`; classes also get a column `probability`."""
EPILOG = """\
unipeft predict outputs/sst2/mam/ab12cd34 reviews.csv --out labelled.csv
unipeft predict ab12 articles.jsonl --out summaries.jsonl num_beams=6 max_new_tokens=40
echo "a fine film" | unipeft predict ab12 -

FILE is .csv, .tsv, .jsonl or .parquet
with the columns that the run's task reads, or .txt with one text a line; - is stdin.
Keys: those of evaluation.decoding (num_beams=4 max_new_tokens=60 ...), batch_size=N, and
backbone.path=DIR, the backbone's current folder, for a run copied from elsewhere.
An interrupted command leaves a valid file with the predictions made so far."""
BATCHES = 16  # batches per write; their texts are sorted by length
SETTINGS = ("batch_size", "backbone.path")
PREFIXES = ("evaluation.decoding.", "decoding.", "evaluation.")


@entry
def main(argv: Sequence[str]) -> int:
    """Predict for the rows of one file; return the exit code."""
    args = _parser().parse(argv)
    settings, decoding = split_overrides(args.overrides)
    from unipeft_run.data.tasks.build import build_task
    from unipeft_run.inference.input_table import read_inputs
    from unipeft_run.inference.stored_run import choose_batch_size, open_run, override_decoding

    path = settings.get("backbone.path")
    run = open_run(args.run, allow=args.allow, backbone_path=path)
    override_decoding(run.config, decoding)
    choose_batch_size(run.config, settings.get("batch_size"))
    table = read_inputs(args.file, build_task(run.config.task))
    job = _plan(args, run, table)
    job.write(_load_predictor(run, settings.get("batch_size"), decoding))
    return 0


def _parser() -> Parser:
    parser = Parser("predict", HELP, EPILOG)
    parser.add_runs("run")
    parser.add_argument("file", metavar="FILE", help="the inputs, or - for stdin")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="decoding settings"
    )
    parser.add_argument(
        "--out", type=expand_path, metavar="FILE", help="write to this file instead of stdout"
    )
    parser.add_argument("--format", choices=("csv", "jsonl"),
                        help="default: that of --out, else that of the input")  # fmt: skip
    parser.add_argument("--column", default="prediction", metavar="NAME",
                        help="the column of the predictions (default: prediction)")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an existing --out")
    parser.add_allow()
    return parser


def split_overrides(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings and the decoding overrides in `words`. Raises UserError."""
    settings: dict[str, Any] = {}
    decoding: dict[str, Any] = {}
    for key, value in parse_overrides(words).items():
        prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), "")
        name = key.removeprefix(prefix)
        if name in SETTINGS:
            settings[name] = value
        elif name in DecodingConfig.model_fields:
            decoding[name] = value
        else:
            raise UserError(unknown_key(key, (*DecodingConfig.model_fields, *SETTINGS)))
    return settings, decoding


@dataclass(frozen=True)
class PredictionJob:
    """The inputs and the output of one prediction, checked before any weight is loaded."""

    table: InputTable
    out: Path | None
    kind: Any
    columns: tuple[str, ...]
    force: bool

    def write(self, predictor: Predictor) -> None:
        """Predict chunk by chunk, and write each as soon as it is done."""
        from unipeft_run.inference.prediction_file import PredictionFile
        from unipeft_run.tracking.console import Console

        header = [*self.table.columns, *self.columns]
        console, began, total = Console(), time.monotonic(), len(self.table.records)
        with PredictionFile(self.out, self.kind, header, force=self.force) as file:
            try:
                with console.progress("predict", total) as advance:
                    for start in range(0, total, BATCHES * predictor.batch_size):
                        self._write_chunk(file, predictor, start, advance)
            except KeyboardInterrupt as stop:
                where = "" if self.out is None else f"; {self.out} holds them"
                stop.args = (f"interrupted after {file.rows} of {total} predictions{where}",)
                raise
        if self.out is not None:
            seconds = time.monotonic() - began
            print(f"{total} predictions in {seconds:.1f} s: {self.out}")

    def _write_chunk(
        self, file: PredictionFile, predictor: Predictor, start: int, advance: Any
    ) -> None:
        rows = slice(start, start + BATCHES * predictor.batch_size)
        inputs = {name: texts[rows] for name, texts in self.table.texts.items()}
        found = predictor(inputs, advance)
        file.write([
            {**record, **dict(zip(self.columns, _cells(prediction), strict=True))}
            for record, prediction in zip(self.table.records[rows], found, strict=True)
        ])  # fmt: skip


def _plan(args: argparse.Namespace, run: StoredRun, table: InputTable) -> PredictionJob:
    """Check the output file, format and column; return the job. Raises UserError."""
    from unipeft_run.data.tasks.build import build_task
    from unipeft_run.inference.prediction_file import choose_format

    out: Path | None = args.out
    if out is not None:
        _check_out(out, args.file, force=args.force)
    columns = [args.column]
    if build_task(run.config.task).label_names:
        is_default = args.column == "prediction"
        columns.append("probability" if is_default else f"{args.column}_probability")
    for name in columns:
        if name in table.columns:
            raise UserError(
                f"{args.file} already has a column {name!r}; choose another name with --column NAME"
            )
    kind = choose_format(args.format, out, table.suffix)
    return PredictionJob(table, out, kind, tuple(columns), args.force)


def _check_out(out: Path, source: str, *, force: bool) -> None:
    if not out.parent.is_dir():
        raise UserError(f"--out={out}: there is no folder {out.parent}")
    if out.is_dir():
        raise UserError(f"--out={out} is a folder; name a file in it")
    if not out.exists():
        return
    if source != "-" and os.path.samefile(out, os.path.expanduser(source)):
        raise UserError(f"--out={out} is the input file; name another one")
    if not force:
        raise UserError(f"--out={out} exists; name another file, or add --force")


def _load_predictor(run: StoredRun, batch_size: Any, decoding: Mapping[str, Any]) -> Predictor:
    from unipeft_run.inference.loaded_run import load_stored
    from unipeft_run.training.precision import choose_kernels

    choose_kernels()
    return load_stored(run).predictor(batch_size, **decoding)


def _cells(prediction: Any) -> tuple[Any, ...]:
    """Return the predicted cells of a row: the text, the number, or a class, its probability."""
    if isinstance(prediction, str):
        return (prediction,)
    if isinstance(prediction, float):
        return (round(prediction, 6),)
    return prediction.label, round(prediction.probability, 6)
