"""Runs sent to a dashboard from what their folders hold: after weeks offline, after a crash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unipeft_run.runs.folder import read_object, replace_file
from unipeft_run.runs.registry import Run
from unipeft_run.tracking import Tracker
from unipeft_run.tracking.build import public_name
from unipeft_run.tracking.jsonl import records
from unipeft_run.tracking.tensorboard import TensorBoard
from unipeft_run.tracking.wandb import WandB

SENT = ("config.yaml", "train.jsonl", "metrics.json", "parameters.json", "predictions/test.jsonl")


def push(runs: Sequence[Run], sink: str, *, mode: str = "online", again: bool = False) -> int:
    """Send every run that is not going on to `sink`; 1 if one could not be sent.

    What was sent before and has not changed since is not sent again, unless `again`.
    """
    told = [_push(run, sink, mode, again) for run in runs]
    for run, (state, why) in zip(runs, told, strict=True):
        print(f"{state}: {run.label}" + (f": {why}" if why else ""))
    return int(any(state == "failed" for state, _ in told))


def _push(run: Run, sink: str, mode: str, again: bool) -> tuple[str, str]:
    if run.state == "running":
        return "skipped", "it is running, and sends itself"
    if run.state == "damaged":
        return "failed", "its configuration cannot be read"
    tracker = _tracker(run, sink, mode)
    mark, digest = run.folder / "pushed.json", _digest(run.folder)
    target = f"{sink} {mode}" if sink == "wandb" else sink
    pushed = read_object(mark)
    if pushed.get(target) == digest and not again:
        return "there already", ""
    try:
        replay(run.folder, run.config, run.state, tracker)
    except (OSError, ValueError) as error:
        return "failed", str(error)
    if isinstance(tracker, WandB) and tracker.problem:
        return "failed", tracker.problem
    replace_file(mark, json.dumps({**pushed, target: digest}, indent=2).encode() + b"\n")
    return "sent", f"{len(records(run.folder / 'train.jsonl'))} records"


def replay(folder: Path, config: Mapping[str, Any], state: str, tracker: Tracker) -> None:
    """Tell `tracker` what it would have heard during the run."""
    found = records(folder / "train.jsonl")
    tracker.start(config)
    tracker.begin(0, max((record["step"] for record in found), default=0))
    for record in found:
        tracker.log({key: value for key, value in record.items() if key != "step"}, record["step"])
    tracker.finish(read_object(folder / "metrics.json"), state)


def _tracker(run: Run, sink: str, mode: str) -> Tracker:
    given = run.config.get("tracking") or {}
    name = public_name(run.folder)
    if sink == "tensorboard":
        return TensorBoard(given.get("tensorboard") or "boards", name)
    return WandB(run.folder, name, **{**(given.get("wandb") or {}), "mode": mode})


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in (folder / name for name in SENT):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
