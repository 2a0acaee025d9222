"""Replay runs to a dashboard from their folders, for example after a crash or without a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unipeft_run.errors import UserError
from unipeft_run.runs.folder import read_object
from unipeft_run.runs.printable import printable
from unipeft_run.runs.reader import RunRecord
from unipeft_run.runs.reading import UnreadableFile, read_bytes
from unipeft_run.runs.writing import replace_file
from unipeft_run.tracking import Record, Tracker
from unipeft_run.tracking.build import dashboard_name
from unipeft_run.tracking.tensorboard import TensorBoard, load_writer
from unipeft_run.tracking.wandb import WandB

SENT = ("config.yaml", "train.jsonl", "metrics.json", "parameters.json", "predictions/test.jsonl")
LARGEST = 1 << 28  # bytes of one of these files
BOARDS = Path("boards")  # TensorBoard's event files
NAMES = (
    "project",
    "entity",
    "group",
    "job_type",
    "name",
)  # W&B options that a stored configuration may set


def push(runs: Sequence[RunRecord], sink: str, *, mode: str = "online", again: bool = False) -> int:
    """Send every run that is not running to `sink`; return 1 if one could not be sent.

    A run that was sent before and has not changed is sent only with `again`. Prints a line per run.
    """
    if not runs:
        print("nothing to send")
    if sink == "tensorboard":
        _require_tensorboard()
    has_failed = False
    for run in runs:
        try:
            state, detail = _push(run, sink, mode, again)
        except Exception as error:  # a damaged run must not stop the others
            state, detail = "failed", str(error) or type(error).__name__
        print(": ".join(filter(None, (state, run.label, printable(detail, 300)))), flush=True)
        has_failed |= state == "failed"
    return int(has_failed)


def _require_tensorboard() -> None:
    try:
        load_writer()
    except ImportError as error:
        raise UserError(f"nothing was sent: {error}") from None


def _push(run: RunRecord, sink: str, mode: str, again: bool) -> tuple[str, str]:
    """Send one run; return its outcome and the details."""
    if run.state == "running":
        return "skipped", "it is running, and sends its records itself"
    if not run.config:
        return "failed", run.error or "its configuration cannot be read"
    mark, digest = run.folder / "pushed.json", _digest(run.folder)
    target = f"{sink} {mode}" if sink == "wandb" else sink
    pushed = read_object(mark)
    if pushed.get(target) == digest and not again:
        return "sent before", ""
    tracker = _make_tracker(run, sink, mode)
    records = list(run.train_records())
    replay(run.config, records, run.metrics, run.state, tracker)
    if tracker.problem:
        return "failed", tracker.problem
    try:
        replace_file(mark, json.dumps({**pushed, target: digest}, indent=2).encode() + b"\n")
    except OSError as error:
        return "failed", f"it was sent, but {mark.name} cannot be written: {error.strerror}"
    return "sent", f"{len(records)} record{'s' * (len(records) != 1)}"


def replay(
    config: Mapping[str, Any],
    records: Sequence[Record],
    metrics: Mapping[str, Any],
    state: str,
    tracker: Tracker,
) -> None:
    """Send `tracker` the events that it would have received during the run."""
    tracker.start(config)
    tracker.begin(0, max((record["step"] for record in records), default=0))
    for record in records:
        tracker.log({key: value for key, value in record.items() if key != "step"}, record["step"])
    tracker.finish(metrics, state)


def _make_tracker(run: RunRecord, sink: str, mode: str) -> WandB | TensorBoard:
    """Build the tracker of `sink`; it takes only names, never a path, from the stored options."""
    name = dashboard_name(run.folder)
    if sink == "tensorboard":
        return TensorBoard(BOARDS, name)
    return WandB(run.folder, name, **{**_stored_names(run.config), "mode": mode})


def _stored_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the valid W&B names and tags of a stored configuration."""
    tracking = config.get("tracking")
    options = tracking.get("wandb") if isinstance(tracking, Mapping) else None
    if not isinstance(options, Mapping):
        return {}
    tags = options.get("tags")
    valid = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    return {**{n: options[n] for n in NAMES if isinstance(options.get(n), str)}, "tags": valid}


def _digest(folder: Path) -> str:
    """Return a hash of all files that are sent."""
    digests = [hashlib.sha256(_content(folder / name)).digest() for name in SENT]
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path, LARGEST)
    except UnreadableFile:
        return b""
