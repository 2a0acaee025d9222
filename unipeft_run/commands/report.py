"""unipeft report: make tables and figures from run folders, without changing them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unipeft_run.commands.arguments import Parser
from unipeft_run.commands.entry import entry
from unipeft_run.errors import UserError
from unipeft_run.runs.printable import printable

if TYPE_CHECKING:
    from unipeft_run.config.experiments import Experiment
    from unipeft_run.runs.reader import RunRecord

FORMAT_NAMES = ("text", "markdown", "csv")
HELP = """\
Print tables of finished runs: methods ranked by their test score, with their cost."""
EPILOG = """\
unipeft report plan NAME      list the missing runs of a published table, with their commands
unipeft report curves FOLDER  draw loss, validation score and learning rate of every run
unipeft report shares FOLDER  draw the score of every method against the parameters it stores"""
FIGURES = {
    "curves": "Draw the training curves of runs, one row of panels per task and scale.",
    "shares": "Draw the test score of every method against the share of parameters it stores.",
}
PLAN_HELP = "List the cells of a published table with their states, and commands for missing ones."


@entry
def main(argv: Sequence[str]) -> int:
    """Make a table, a plan or a figure; return the exit code."""
    if argv[:1] == ["plan"]:
        return _plan(_plan_parser().parse(argv[1:]))
    if argv[:1] and argv[0] in FIGURES:
        return _draw(argv[0], _figure_parser(argv[0]).parse(argv[1:]))
    return _tabulate(_parser().parse(argv))


def _tabulate(args: argparse.Namespace) -> int:
    from unipeft_run.report.render import FORMATS

    experiment = _read_experiment(args.experiment) if args.experiment else None
    runs = _finished(args.folders)
    if experiment:
        from unipeft_run.report.published import compare_with_paper

        print(FORMATS[args.format](compare_with_paper(experiment, runs)))
    elif runs:
        from unipeft_run.report.tables import make_tables

        print(FORMATS[args.format](make_tables(runs)))
    if not runs:
        print("no finished run yet", file=sys.stderr)
    return 0


def _finished(folders: Sequence[Path]) -> list[RunRecord]:
    """Return the finished runs; print a line for each run that is left out."""
    from unipeft_run.runs.reader import finished_runs

    runs, left_out = finished_runs(folders)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    return runs


def _plan(args: argparse.Namespace) -> int:
    from unipeft_run.report.plan import plan_experiment
    from unipeft_run.report.render import FORMATS

    _read_experiment(args.experiment)
    print(FORMATS[args.format]([plan_experiment(args.experiment, args.overrides)]))
    return 0


def _draw(kind: str, args: argparse.Namespace) -> int:
    from unipeft_run.report import figures

    if kind == "curves":
        figures.draw_curves(_with_records(args.folders), args.out)
    else:
        from unipeft_run.report.tables import make_tables

        runs = _finished(args.folders)
        if not runs:
            raise UserError("no finished run yet")
        figures.draw_shares(make_tables(runs), args.out)
    print(printable(args.out))
    return 0


def _with_records(folders: Sequence[Path]) -> list[RunRecord]:
    """Return the runs that have training records; print a line for each unreadable one."""
    from unipeft_run.runs.reader import find_runs
    from unipeft_run.runs.reading import UnreadableFile

    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise UserError(f"there is no folder {printable(missing[0])}")
    kept = []
    for run in find_runs(folders):
        try:
            if run.config and any(True for _ in run.train_records()):
                kept.append(run)
        except UnreadableFile as error:
            print(f"left out: {run.label}: {error}", file=sys.stderr)
    return kept


def _read_experiment(name: str) -> Experiment:
    from unipeft_run.config.experiments import read

    if experiment := read(name):
        return experiment
    raise UserError(f"experiment {name} lists no cells, so it has no table")


def _parser() -> Parser:
    parser = Parser("report", HELP, EPILOG)
    parser.add_runs("folders", "+")
    parser.add_argument(
        "--experiment", metavar="NAME", help="compare our results with this published table"
    )
    parser.add_format(*FORMAT_NAMES)
    return parser


def _figure_parser(kind: str) -> Parser:
    parser = Parser(f"report {kind}", FIGURES[kind])
    parser.add_runs("folders", "+")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(f"{kind}.svg"),
        metavar="FILE",
        help=f"the figure to write: svg, png or pdf (default: {kind}.svg)",
    )
    return parser


def _plan_parser() -> Parser:
    parser = Parser("report plan", PLAN_HELP)
    parser.add_argument(
        "experiment", metavar="NAME", help="a file in conf/experiment, such as table6_xsum"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="overrides as for unipeft train, such as output=, scale= or seed=",
    )
    parser.add_format(*FORMAT_NAMES)
    return parser
