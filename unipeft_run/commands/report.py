"""unipeft report: make tables and figures from run folders, without changing them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unipeft_run.commands.entry import entry
from unipeft_run.commands.report_arguments import (
    FIGURES,
    make_compare_parser,
    make_figure_parser,
    make_parser,
    make_plan_parser,
)
from unipeft_run.errors import UserError
from unipeft_run.runs.printable import printable
from unipeft_run.runs.search import OUTPUTS, find_run

if TYPE_CHECKING:
    from unipeft_run.config.experiments import Experiment
    from unipeft_run.runs.reader import RunRecord


@entry
def main(argv: Sequence[str]) -> int:
    """Make a table, a plan or a figure; return the exit code."""
    if argv[:1] == ["plan"]:
        return _plan(make_plan_parser().parse(argv[1:]))
    if argv[:1] == ["compare"]:
        return _compare(make_compare_parser().parse(argv[1:]))
    if argv[:1] and argv[0] in FIGURES:
        return _draw(argv[0], make_figure_parser(argv[0]).parse(argv[1:]))
    return _tabulate(make_parser().parse(argv))


def _tabulate(args: argparse.Namespace) -> int:
    if args.html:
        return _write_page(args)
    from unipeft_run.report.columns import select_columns
    from unipeft_run.report.render import FORMATS
    from unipeft_run.report.tables import make_tables

    experiment = _read_experiment(args.experiment) if args.experiment else None
    runs = _finished(args)
    if experiment:
        from unipeft_run.report.published import compare_with_paper

        tables = compare_with_paper(experiment, runs)
    else:
        tables = make_tables(runs)
    if args.columns:
        tables = select_columns(tables, args.columns)
    if tables:
        print(FORMATS[args.format](tables))
    if not runs:
        print(_say_none(args), file=sys.stderr)
    return 0


def _say_none(args: argparse.Namespace) -> str:
    """Say that no finished run was found."""
    return f"no finished run matches {_filters(args)}" if args.filters else "no finished run yet"


def _filters(args: argparse.Namespace) -> str:
    return " ".join(map(printable, args.filters))


def _write_page(args: argparse.Namespace) -> int:
    """Write the page of all finished runs, and print its name."""
    for option, given in (("format", args.format != "text"), ("columns", args.columns)):
        if given:
            raise UserError(f"--html and --{option} exclude each other; run the command twice")
    if args.html.is_dir():
        file = printable(args.html)
        raise UserError(
            f"--html {file}: this is a folder; write unipeft report {file} --html [FILE]"
        )
    from unipeft_run.report.html import render_page
    from unipeft_run.runs.finished import finished_runs

    experiment = _read_experiment(args.experiment) if args.experiment else None
    runs, left_out = finished_runs(args.folders or [OUTPUTS], args.filters)
    if not runs:
        print("\n".join(f"left out: {line}" for line in left_out), file=sys.stderr)
        raise UserError(_say_none(args))
    page = render_page(runs, left_out, experiment, args.predictions)
    try:
        args.html.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{printable(args.html)} cannot be written: {error.strerror}") from None
    print(printable(args.html))
    return 0


def _compare(args: argparse.Namespace) -> int:
    from unipeft_run.report.comparison import compare_runs
    from unipeft_run.report.render import FORMATS

    runs = [_read_finished(find_run(name, args.folder)) for name in args.runs]
    if len(runs) < 2:
        raise UserError("name at least two runs to compare")
    print(FORMATS[args.format]([compare_runs(runs, args.metric)]))
    return 0


def _read_finished(folder: Path) -> RunRecord:
    from unipeft_run.runs.reader import read_run

    run = read_run(folder)
    if run.reason_left_out:
        raise UserError(f"{run.label}: {run.reason_left_out}")
    return run


def _finished(args: argparse.Namespace) -> list[RunRecord]:
    """Return the selected finished runs; print a line for each run that is left out."""
    from unipeft_run.runs.finished import finished_runs

    runs, left_out = finished_runs(args.folders or [OUTPUTS], args.filters)
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
        runs = _with_records(args)
        if args.filters and not runs:
            raise UserError(f"no run with records matches {_filters(args)}")
        figures.draw_curves(runs, args.out)
    else:
        from unipeft_run.report.tables import make_tables

        runs = _finished(args)
        if not runs:
            raise UserError(_say_none(args))
        figures.draw_shares(make_tables(runs), args.out)
    print(printable(args.out))
    return 0


def _with_records(args: argparse.Namespace) -> list[RunRecord]:
    """Return the selected runs that have training records; print a line for each unreadable one."""
    from unipeft_run.runs.filters import select_runs
    from unipeft_run.runs.reader import find_runs
    from unipeft_run.runs.reading import UnreadableFile

    folders = args.folders or [OUTPUTS]
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise UserError(f"there is no folder {printable(missing[0])}")
    kept = []
    for run in select_runs(find_runs(folders), args.filters):
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
