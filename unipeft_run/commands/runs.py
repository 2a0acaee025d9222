"""unipeft-runs: list runs and their states, rerun failed ones, send records to a dashboard.

unipeft-runs                                  list the runs in outputs
unipeft-runs DIR task=sst2 seed=1,2 method=lora_*   list those that match every filter
unipeft-runs --stale                          list unfinished runs whose process was killed
unipeft-runs --retry-failed                   rerun failed, diverged, interrupted and stale runs
unipeft-runs push --to wandb                  send the records in train.jsonl to a dashboard
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.errors import UserError
from unipeft_run.runs.columns import fit_columns
from unipeft_run.runs.failures import explain_interrupt
from unipeft_run.runs.filters import select_runs
from unipeft_run.runs.printable import printable, printable_lines
from unipeft_run.runs.reader import RunRecord, find_runs

if TYPE_CHECKING:
    from unipeft_run.config import PlannedRun

RETRIED = ("failed", "diverged", "interrupted", "stale", "damaged")
SINKS = ("wandb", "tensorboard")
COLUMNS = ("run", "seed", "state", "step", "metric", "left")


def main() -> NoReturn:
    """Run unipeft-runs; exit with 0, with 1 if a run failed, or with 2 for a user error."""
    ignore_broken_pipes()
    try:
        sys.exit(command(sys.argv[1:]))
    except UserError as error:
        print(printable_lines(error), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(explain_interrupt(stop), file=sys.stderr)
        sys.exit(128 + getattr(stop, "signum", 2))


def command(argv: Sequence[str]) -> int:
    """Run the command line `argv`; return the exit code."""
    args = _parser().parse_intermixed_args(argv)
    is_push = args.arguments[:1] == ["push"]
    folder, filters = _split(args.arguments[is_push:])
    runs = select_runs(find_runs([folder]), [*filters, *(["state=stale"] if args.stale else [])])
    if is_push:
        from unipeft_run.tracking.replay import push

        return push(runs, args.to, mode=args.mode, again=args.again)
    if args.retry_failed:
        return retry([run for run in runs if run.state in RETRIED], args.allow)
    if args.json:
        print(json.dumps([_as_json(run) for run in runs], indent=2))
    else:
        list_runs(runs)
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="unipeft-runs", description=__doc__, formatter_class=raw)
    parser.add_argument("arguments", nargs="*", metavar="DIR | key=value | push")
    parser.add_argument(
        "--stale", action="store_true", help="list only runs whose process was killed"
    )
    parser.add_argument("--retry-failed", action="store_true",
                        help="rerun them with their stored configuration")  # fmt: skip
    parser.add_argument("--allow", nargs=1, action="extend", default=[], metavar="PREFIX",
                        help="classes outside unipeft that a stored run may name")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--to", choices=SINKS, default="wandb", help="the dashboard for push")
    parser.add_argument("--mode", choices=("online", "offline"), default="online",
                        help="of wandb: offline writes files for wandb sync")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="push runs that were pushed before")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{printable(message)}; see unipeft-runs --help")


def _split(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """Separate the folder from the filters; an existing folder is never taken for a filter."""
    folders = [argument for argument in arguments if "=" not in argument or os.path.isdir(argument)]
    if len(folders) > 1:
        raise UserError(f"one folder at a time: {' or '.join(map(printable, folders))}?")
    folder = Path(folders[0] if folders else "outputs")
    if not folder.is_dir():
        raise UserError(f"there is no folder {printable(folder)}")
    return folder, [argument for argument in arguments if argument not in folders]


def list_runs(runs: Sequence[RunRecord]) -> None:
    """Print a line per run and a count per state to stdout, and the errors to stderr."""
    print("\n".join(fit_columns([COLUMNS, *map(_row, runs)])))
    for run in runs:
        if reason := run.error or "; ".join(run.problems):
            print(f"{run.state}: {run.label}: {reason}", file=sys.stderr)
    states = [run.state for run in runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    plural = "" if len(runs) == 1 else "s"
    print(f"{len(runs)} run{plural}" + (f": {counts}" if runs else ""))


def _row(run: RunRecord) -> tuple[str, ...]:
    step = f"{run.step}/{run.total}" if run.total else str(run.step)
    metric = f"{run.metric[0]} {run.metric[1]:.2f}" if run.metric else ""
    left = "" if run.seconds_left is None else str(timedelta(seconds=int(run.seconds_left)))
    seed = printable(run.config.get("seed", ""), 20)
    return run.label, seed, run.state, step, metric, left


def _as_json(run: RunRecord) -> dict[str, Any]:
    names = ("state", "step", "total", "seconds_left", "error", "problems", "metric")
    content = {name: getattr(run, name) for name in names}
    return {"folder": str(run.folder), **content, "config": dict(run.config)}


def retry(runs: Sequence[RunRecord], allow: Sequence[str] = ()) -> int:
    """Rerun each run with its stored configuration, print a table, and return the exit code."""
    if not runs:
        print("nothing to rerun")
        return 0
    from unipeft_run.runs.outcome import exit_code
    from unipeft_run.sweeps.table import print_table

    outcomes = [_rerun(run, allow) for run in runs]
    print_table([[run.label] for run in runs], outcomes)
    return exit_code(outcomes)


def _rerun(run: RunRecord, allow: Sequence[str]) -> Any:
    from unipeft_run import config as configuration
    from unipeft_run.cli import train_planned
    from unipeft_run.runs.outcome import make_outcome

    if not run.config:
        return make_outcome("refused", run.error)
    folder = run.folder.resolve()
    try:
        stored = configuration.load(folder, allow)
        update = {"output": str(folder.parents[2]), "force": False}
        planned = configuration.plan_config(stored.model_copy(update=update))
    except Exception as error:  # a damaged folder must not prevent the other reruns
        return make_outcome("refused", printable(str(error) or type(error).__name__, 500))
    if planned.folder != folder:
        return make_outcome("refused", printable(_explain_other_id(run.label, folder, planned)))
    return train_planned(planned)


def _explain_other_id(label: str, folder: Path, planned: PlannedRun) -> str:
    """Say why the run cannot be rerun in its folder."""
    from unipeft_run.config.contents import CONTENTS, describe_changes
    from unipeft_run.runs.folder import read_object

    names = ", ".join(describe_changes(read_object(folder / CONTENTS), planned.contents))
    cause = f"{names} changed since" if names else "its version computed run ids differently"
    return (
        f"{label} cannot be rerun in its folder: {cause}; the command that started it "
        f"makes a new run, {planned.folder.name}"
    )
