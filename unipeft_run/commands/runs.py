"""unipeft runs: list runs and their states, rerun failed ones, send records to a dashboard."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipeft_run.commands.arguments import Parser, as_json, split_overrides
from unipeft_run.commands.entry import entry, resumable
from unipeft_run.commands.signals import raise_on_sigterm
from unipeft_run.errors import UserError
from unipeft_run.runs.columns import fit_columns
from unipeft_run.runs.filters import select_runs
from unipeft_run.runs.printable import printable
from unipeft_run.runs.reader import RunRecord, find_runs
from unipeft_run.runs.search import OUTPUTS, find_run
from unipeft_run.training.distributed.environment import prepare_environment, silence_progress_bars

if TYPE_CHECKING:
    from unipeft_run.config import PlannedRun

HELP = """\
List runs and their states, rerun failed ones, send records to a dashboard. Deleting the folder of a
run removes the run."""
EXAMPLES = """\
unipeft runs                                  list the runs in outputs
unipeft runs DIR task=sst2 seed=1,2 method=lora_*   list those that match every filter
unipeft runs --stale                          list unfinished runs whose process was killed
unipeft runs --retry-failed                   rerun the runs that did not finish
unipeft runs push --to wandb                  send the records in train.jsonl to a dashboard"""
RETRIED = ("failed", "diverged", "interrupted", "stale", "damaged")
RETRY_HELP = (
    f"rerun {', '.join(RETRIED[:-1])} and {RETRIED[-1]} runs with their stored configuration"
)
SINKS = ("wandb", "tensorboard")
COLUMNS = ("run", "started", "seed", "state", "step", "metric", "left", "settings")


@entry
def main(argv: Sequence[str]) -> int:
    """List, rerun or push the selected runs; return the exit code, 1 if a run failed."""
    args = _parse(argv)
    is_push = args.words[:1] == ["push"]
    folder, filters = _split(args.words[is_push:])
    runs = select_runs(find_runs([folder]), [*filters, *(["state=stale"] if args.stale else [])])
    if is_push:
        from unipeft_run.tracking.replay import push

        return push(runs, args.to, mode=args.mode, again=args.again)
    if args.retry_failed:
        silence_progress_bars()
        prepare_environment()
        with raise_on_sigterm(), resumable(argv):
            return retry([run for run in runs if run.state in RETRIED], args.allow)
    runs = sorted(runs, key=_find_start)  # the newest last
    if args.format == "json":
        print(as_json([_describe(run) for run in runs]))
    else:
        list_runs(runs)
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("runs", HELP, EXAMPLES)
    add = parser.add_argument
    add("words", nargs="*", metavar="DIR | RUN | key=value | push")
    add("--stale", action="store_true", help="list only runs whose process was killed")
    add("--retry-failed", action="store_true", help=RETRY_HELP)
    parser.add_format("text", "json")
    add("--json", dest="format", action="store_const", const="json", help="as --format json")
    add("--to", choices=SINKS, default="wandb", help="the dashboard for push")
    add("--mode", choices=("online", "offline"), default="online",
        help="of wandb: offline writes files for wandb sync")  # fmt: skip
    add("--again", action="store_true", help="push runs that were pushed before")
    parser.add_allow()
    return parser.parse(argv)


def _split(words: Sequence[str]) -> tuple[Path, list[str]]:
    """Separate the folder or run from the filters."""
    folders, filters = split_overrides(words)
    if len(folders) > 1:
        raise UserError(f"one folder at a time: {' or '.join(map(printable, folders))}?")
    if folders:
        return find_run(folders[0]), filters
    if not OUTPUTS.is_dir():
        raise UserError(f"there is no folder {OUTPUTS}")
    return OUTPUTS, filters


def list_runs(runs: Sequence[RunRecord]) -> None:
    """Print a line per run and a count per state to stdout, and the errors to stderr."""
    from unipeft_run.report.settings import describe_settings

    settings = describe_settings(runs)
    rows = [COLUMNS, *((*_row(run), text) for run, text in zip(runs, settings, strict=True))]
    if not any(settings):
        rows = [row[:-1] for row in rows]
    print("\n".join(fit_columns(rows, remarks=any(settings))))
    for run in runs:
        if reason := run.error or "; ".join(run.problems):
            print(f"{run.state}: {run.label}: {reason}", file=sys.stderr)
    states = [run.state for run in runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    plural = "" if len(runs) == 1 else "s"
    print(f"{len(runs)} run{plural}" + (f": {counts}" if runs else ""))


def _find_start(run: RunRecord) -> float:
    """Return when the run started; of an earlier version's run, when it last wrote its state."""
    time = run.started or run.last_beat
    return time.timestamp() if time else 0.0


def _row(run: RunRecord) -> tuple[str, ...]:
    step = f"{run.step}/{run.total}" if run.total else str(run.step)
    metric = f"{run.metric[0]} {run.metric[1]:.2f}" if run.metric else ""
    left = "" if run.seconds_left is None else str(timedelta(seconds=int(run.seconds_left)))
    seed = printable(run.config.get("seed", ""), 20)
    started = f"{run.started:%Y-%m-%d %H:%M}" if run.started else ""
    return run.label, started, seed, run.state, step, metric, left


def _describe(run: RunRecord) -> dict[str, Any]:
    names = ("state", "step", "total", "seconds_left", "error", "problems", "metric")
    content = {name: getattr(run, name) for name in names}
    content["started"] = run.started.isoformat() if run.started else None
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
    from unipeft_run.config.contents import describe_changes
    from unipeft_run.runs.folder import CONTENTS, read_object

    names = ", ".join(describe_changes(read_object(folder / CONTENTS), planned.contents))
    unknown = "the folder was renamed, or an older version computed its run id differently"
    cause = f"{names} changed since" if names else unknown
    return (
        f"{label} cannot be rerun in its folder: {cause}; the command that started it "
        f"makes a new run, {planned.folder.name}"
    )
