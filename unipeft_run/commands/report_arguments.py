"""The command-line arguments of unipeft report and its subcommands."""

from __future__ import annotations

import argparse
from pathlib import Path

from unipeft_run.commands.arguments import Parser, expand_path, split_list
from unipeft_run.runs.printable import printable
from unipeft_run.runs.search import OUTPUTS

FORMAT_NAMES = ("text", "markdown", "latex", "csv")
PAGE = Path("report.html")
HELP = """\
Print tables of finished runs: methods ranked by their test score, with their cost."""
EPILOG = """\
unipeft report outputs task=sst2 method=mam,lora_*      only runs that match, as in unipeft runs
unipeft report outputs --columns method,accuracy,stored_percent --format latex
unipeft report outputs --html          write everything to one page, report.html
unipeft report compare RUN RUN         test whether runs differ significantly from the first
unipeft report plan NAME               list the missing runs of a published table
unipeft report curves FOLDER           draw loss, validation score and learning rate
unipeft report shares FOLDER           draw scores against stored parameters"""
COLUMNS_HELP = """\
these columns only, in this order: method, seeds, the metrics of the test split (accuracy, loss,
...), trained, stored, stored_percent, steps, tokens/s, seconds; with --experiment: row,
percent_printed, percent_ours, seeds, accuracy_printed, accuracy_ours, ..., status, source,
differs_in"""
COMPARE_HELP = """\
Test whether the scores of runs differ significantly from those of the first: paired bootstrap,
approximate randomisation, and McNemar's test for accuracy, adjusted for several runs (Holm)."""
FIGURES = {
    "curves": "Draw the training curves of runs, one row of panels per task and scale.",
    "shares": "Draw the test score of every method against the share of parameters it stores.",
}
PLAN_HELP = "List the cells of a published table with their states, and commands for missing ones."


def make_parser() -> Parser:
    """Return the parser of tables and of the page."""
    parser = Parser("report", HELP, EPILOG)
    parser.add_runs("folders", "*", filters=True)
    parser.add_argument(
        "--experiment", metavar="NAME", help="compare our results with this published table"
    )
    parser.add_argument(
        "--html",
        nargs="?",
        type=expand_path,
        const=PAGE,
        metavar="FILE",
        help=f"write one page that needs no network (default: {PAGE})",
    )
    parser.add_argument(
        "--predictions",
        type=_count,
        default=100,
        metavar="N",
        help="predictions of each run on the page (default: %(default)s)",
    )
    parser.add_argument("--columns", type=_columns, metavar="NAME,NAME", help=COLUMNS_HELP)
    parser.add_format(*FORMAT_NAMES)
    return parser


def _columns(text: str) -> list[str]:
    """Parse a list of columns. Raises `ArgumentTypeError`."""
    if names := split_list(text):
        return names
    raise argparse.ArgumentTypeError("no column given; write method,accuracy")


def _count(text: str) -> int:
    """Parse a number of at least 0. Raises `ArgumentTypeError`."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{printable(text, 40)} is not a number of at least 0")
    return int(text)


def make_compare_parser() -> Parser:
    """Return the parser of `compare`."""
    parser = Parser("report compare", COMPARE_HELP)
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run, by folder or id; the first is the baseline",
    )
    parser.add_argument(
        "--in",
        dest="folder",
        type=expand_path,
        default=OUTPUTS,
        metavar="FOLDER",
        help="where run ids are looked up (default: outputs)",
    )
    parser.add_argument("--metric", metavar="NAME", help="default: the task's primary metric")
    parser.add_format(*FORMAT_NAMES)
    return parser


def make_figure_parser(kind: str) -> Parser:
    """Return the parser of a figure: curves or shares."""
    parser = Parser(f"report {kind}", FIGURES[kind])
    parser.add_runs("folders", "*", filters=True)
    parser.add_argument(
        "--out",
        type=expand_path,
        default=Path(f"{kind}.svg"),
        metavar="FILE",
        help=f"the figure to write: svg, png or pdf (default: {kind}.svg)",
    )
    return parser


def make_plan_parser() -> Parser:
    """Return the parser of `plan`."""
    parser = Parser("report plan", PLAN_HELP)
    parser.add_argument(
        "experiment", metavar="NAME", help="an experiment, such as table6 or table6_xsum"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="overrides as for unipeft train, such as output=, scale= or seed=",
    )
    parser.add_format(*FORMAT_NAMES)
    return parser
