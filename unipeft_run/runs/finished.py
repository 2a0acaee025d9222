"""Select the finished runs that reports tabulate, each once; say why the others are left out.

finished, left_out = finished_runs([Path("outputs")])
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from unipeft_run.errors import UserError
from unipeft_run.runs.filters import select_runs
from unipeft_run.runs.printable import printable
from unipeft_run.runs.reader import RunRecord, find_runs


def finished_runs(
    folders: Sequence[Path], filters: Sequence[str] = ()
) -> tuple[list[RunRecord], list[str]]:
    """Return the finished runs in and below `folders`, and a line for every run left out.

    `filters`: only runs that match all of them count, as in `select_runs`. Raises `UserError` if a
    folder is missing or holds no run, or if no run has the key of a filter.
    """
    finished: dict[str, RunRecord] = {}
    left_out: list[str] = []
    for run in select_runs([run for folder in folders for run in _runs_in(folder)], filters):
        reason = run.reason_left_out
        if not reason:
            key = f"{run.metrics['task']} {run.metrics['run_id']}"
            twin = finished.setdefault(key, run)
            same = os.path.samefile(run.folder, twin.folder)
            reason = "" if same else f"the same run as {printable(twin.folder)}"
        if reason:
            left_out.append(_say_left_out(run, reason))
    kept, repeated = _keep_latest(list(finished.values()))
    return kept, left_out + repeated


def _keep_latest(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """Keep the latest run of each configuration and seed; return a line for each of the others.

    There are others if a version computed run ids differently, so that a run was repeated.
    """
    latest: dict[tuple[str, ...], RunRecord] = {}
    for run in runs:
        other = latest.setdefault(_identity(run), run)
        if _last_beat(other) < _last_beat(run):
            latest[_identity(run)] = run
    kept, left_out = [], []
    for run in runs:
        newest = latest[_identity(run)]
        if newest is run:
            kept.append(run)
        else:
            reason = f"repeated by {printable(newest.folder)}, with the same configuration and seed"
            left_out.append(_say_left_out(run, reason))
    return kept, left_out


def _identity(run: RunRecord) -> tuple[str, ...]:
    names = (run.metrics[name] for name in ("task", "scale", "method", "seed"))
    return run.cell, *map(str, names)


def _last_beat(run: RunRecord) -> str:
    """Return when the run last wrote its state; ISO dates sort as texts."""
    return str(run.status.get("heartbeat", ""))


def _say_left_out(run: RunRecord, reason: str) -> str:
    return f"{printable(_relative(run.folder))}: {reason}"


def _runs_in(folder: Path) -> list[RunRecord]:
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {printable(folder)}; name one with runs, such as outputs"
        )
    if runs := list(find_runs([folder])):
        return runs
    raise UserError(f"{printable(folder)} holds no run: no config.yaml, status.json, metrics.json")


def _relative(folder: Path) -> Path:
    here, path = Path.cwd(), folder.absolute()
    return path.relative_to(here) if path.is_relative_to(here) else path
