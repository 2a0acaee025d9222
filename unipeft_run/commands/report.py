"""The console command unipeft-report. Reads run folders; changes nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.errors import UserError

if TYPE_CHECKING:
    from unipeft_run.config.experiments import Experiment

FORMAT_NAMES = ("text", "markdown", "csv")
HELP = """\
Tables from run folders: methods by what they reach on the test split, and what they cost."""
EPILOG = """\
unipeft-report plan NAME      lists what is still to run of a published table.
unipeft-report curves FOLDER  draws loss, metric and learning rate of every run.
unipeft-report shares FOLDER  draws what the methods reach against what they store."""
FIGURES = {
    "curves": "The curves of the runs, by task and scale, over the updates.",
    "shares": "What the methods reach on the test split against the parameters they store.",
}
PLAN_HELP = "The cells of a published table: their states, and the command of each missing one."


def report() -> NoReturn:
    """unipeft-report."""
    ignore_broken_pipes()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """The exit code: 0, or 2 where something named is not there."""
    try:
        return _report(argv)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _report(argv: Sequence[str]) -> int:
    if argv[:1] == ["plan"]:
        return _plan(_plan_parser().parse_args(argv[1:]))
    if argv[:1] and argv[0] in FIGURES:
        return _figure(argv[0], _figure_parser(argv[0]).parse_args(argv[1:]))
    return _tables(_parser().parse_args(argv))


def _tables(args: argparse.Namespace) -> int:
    from unipeft_run.report.folders import read_runs
    from unipeft_run.report.render import FORMATS

    experiment = _experiment(args.experiment) if args.experiment else None
    runs, left = read_runs(args.folders)
    if experiment:
        from unipeft_run.report.published import published

        print(FORMATS[args.format](published(experiment, runs)))
    elif runs:
        from unipeft_run.report.tables import tables

        print(FORMATS[args.format](tables(runs)))
    for line in left:
        print(f"left out: {line}", file=sys.stderr)
    if not runs:
        print("no finished run yet", file=sys.stderr)
    return 0


def _plan(args: argparse.Namespace) -> int:
    from unipeft_run.report.plan import plan
    from unipeft_run.report.render import FORMATS

    _experiment(args.experiment)
    print(FORMATS[args.format]([plan(args.experiment, args.words)]))
    return 0


def _figure(kind: str, args: argparse.Namespace) -> int:
    from unipeft_run.report import figures

    if kind == "curves":
        from unipeft_run.runs.registry import find

        if missing := [folder for folder in args.folders if not folder.is_dir()]:
            raise UserError(f"there is no folder {missing[0]}")
        found = [run for folder in args.folders for run in find(folder) if run.config]
        runs = [run for run in found if (run.folder / "train.jsonl").is_file()]
        figures.draw_curves(runs, args.out)
    else:
        from unipeft_run.report.folders import read_runs
        from unipeft_run.report.tables import tables

        finished, _ = read_runs(args.folders)
        if not finished:
            raise UserError("no finished run yet")
        figures.draw_shares(tables(finished), args.out)
    print(args.out)
    return 0


def _experiment(name: str) -> Experiment:
    from unipeft_run.config.experiments import read

    if experiment := read(name):
        return experiment
    raise UserError(f"experiment {name} lists no cells")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "unipeft-report",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="runs, or what holds them: outputs"
    )
    parser.add_argument(
        "--experiment", metavar="NAME", help="that published table, the paper's figures beside ours"
    )
    parser.add_argument("--format", choices=FORMAT_NAMES, default="text")
    return parser


def _figure_parser(kind: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"unipeft-report {kind}", description=FIGURES[kind])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--out", type=Path, default=Path(f"{kind}.svg"), metavar="FILE", help="svg, png or pdf"
    )
    return parser


def _plan_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("unipeft-report plan", description=PLAN_HELP)
    parser.add_argument("experiment", metavar="NAME", help="as in table6_xsum: see conf/experiment")
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="as for unipeft-train: output=, scale=, seed="
    )
    parser.add_argument("--format", choices=FORMAT_NAMES, default="text")
    return parser
