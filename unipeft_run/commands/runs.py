"""unipeft-runs: what runs there are and how they stand; run some again; send them elsewhere.

unipeft-runs                                  the runs in outputs
unipeft-runs DIR task=sst2 seed=1,2 method=lora_*   those that fit
unipeft-runs --stale                          whose process is gone before they were done
unipeft-runs --retry-failed                   run failed, diverged and stale ones again
unipeft-runs push --to wandb                  send what train.jsonl has to a dashboard
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from unipeft_run.commands.pipes import outlive_readers
from unipeft_run.errors import UserError
from unipeft_run.runs.registry import Run, find, select

AGAIN = ("failed", "diverged", "stale", "damaged")
SINKS = ("wandb", "tensorboard")


def main() -> NoReturn:
    """The console command; exits with 0, with 1 if a run failed, or 2 for a wrong word."""
    outlive_readers()
    try:
        sys.exit(command(sys.argv[1:]))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        sys.exit(128 + getattr(stop, "signum", 2))


def command(argv: Sequence[str]) -> int:
    """Do what the words say; the exit code."""
    args = _parser().parse_intermixed_args(argv)
    push = args.words[:1] == ["push"]
    folder, filters = _places(args.words[push:])
    runs = select(find(folder), [*filters, *(["state=stale"] if args.stale else [])])
    if push:
        from unipeft_run.tracking.replay import push as send

        return send(runs, args.to, mode=args.mode, again=args.again)
    if args.retry_failed:
        return retry([run for run in runs if run.state in AGAIN], args.allow)
    if args.json:
        print(json.dumps([_plain(run) for run in runs], indent=2))
    else:
        show(runs)
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="unipeft-runs", description=__doc__, formatter_class=raw)
    parser.add_argument("words", nargs="*", metavar="DIR | key=value | push")
    parser.add_argument("--stale", action="store_true", help="only those whose process is gone")
    parser.add_argument("--retry-failed", action="store_true", help="run them again, as stored")
    parser.add_argument("--allow", nargs=1, action="extend", default=[], metavar="PREFIX",
                        help="classes outside unipeft that a stored run may name")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="data instead of a table")
    parser.add_argument("--to", choices=SINKS, default="wandb", help="where push sends")
    parser.add_argument("--mode", choices=("online", "offline"), default="online",
                        help="of wandb: offline writes files for wandb sync")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="push also what was pushed before")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see unipeft-runs --help")


def _places(words: Sequence[str]) -> tuple[Path, list[str]]:
    folders = [word for word in words if "=" not in word]
    if len(folders) > 1:
        raise UserError(f"one folder at a time: {' or '.join(folders)}?")
    folder = Path(folders[0] if folders else "outputs")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    return folder, [word for word in words if "=" in word]


def show(runs: Sequence[Run]) -> None:
    """A table on stdout: one line a run, the last what went wrong; then how many of each state."""
    from rich.console import Console
    from rich.table import Table

    table = Table("run", "seed", "state", "step", "metric", "left", box=None, header_style="bold")
    for run in runs:
        step = f"{run.step}/{run.total}" if run.total else str(run.step)
        metric = f"{run.metric[0]} {run.metric[1]:.2f}" if run.metric else ""
        left = "" if run.seconds_left is None else str(timedelta(seconds=int(run.seconds_left)))
        table.add_row(run.label, str(run.config.get("seed", "")), run.state, step, metric, left)
    console = Console()
    console.width = max(console.width, console.measure(table).maximum)
    console.print(table, highlight=False)
    for run in runs:
        if run.error:
            print(f"{run.state}: {run.label}: {run.error}", file=sys.stderr)
    states = [run.state for run in runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"{len(runs)} runs" + (f": {counts}" if runs else ""))


def _plain(run: Run) -> dict[str, Any]:
    content = {name: getattr(run, name) for name in ("state", "step", "total", "seconds_left")}
    named = {"folder": str(run.folder), **content, "error": run.error}
    return {**named, "metric": run.metric, "config": dict(run.config)}


def retry(runs: Sequence[Run], allow: Sequence[str] = ()) -> int:
    """Run each again with the configuration it has stored; a table, and the exit code."""
    if not runs:
        print("nothing to run again")
        return 0
    from unipeft_run.runs.outcome import exit_code
    from unipeft_run.sweeps.grid import print_table

    outcomes = [_again(run, allow) for run in runs]
    print_table([[run.label] for run in runs], outcomes)
    return exit_code(outcomes)


def _again(run: Run, allow: Sequence[str]) -> Any:
    from omegaconf import OmegaConf

    from unipeft_run import config as configuration
    from unipeft_run.cli import train_job
    from unipeft_run.runs.outcome import make_outcome

    try:
        stored = configuration.load(run.folder, allow)
        place = {"output": str(run.folder.absolute().parents[2]), "force": False}
        cfg = OmegaConf.create({**stored, **place})
        now = configuration.run_folder(cfg)
    except UserError as refusal:
        return make_outcome("refused", str(refusal))
    if now != run.folder.absolute():
        return make_outcome("refused", f"what {run.label} has stored is another run by now, {now}")
    return train_job(cfg)
