"""Track a short run with W&B offline, and read back what W&B wrote."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

from unipeft_run.tracking.wandb import WandB

TRAIN = {"train/loss": 0.5, "train/lr": 1e-4, "train/tokens_per_second": 1234.5}


def track(folder: Path, **given: Any) -> float:
    """Track a short run; return the seconds that `start` and `log` took."""
    tracker = WandB(folder, "ab12cd34", group="sweep", tags=["mam"], **given)
    began = time.perf_counter()
    tracker.start({"task": "sst2", "attn": {"bottleneck": 16}})
    tracker.begin(0, 4)
    for step in range(1, 5):
        tracker.tick(TRAIN, step, None)
        tracker.log({"train/loss": 1 / step, "best_step": None}, step)
    held_up = time.perf_counter() - began
    tracker.finish({"test/accuracy": 90.5}, "done")
    return held_up


def stored_records(folder: Path) -> list[Any]:
    """Return the records of the offline file, which wandb's service closes soon after `finish`."""
    for _ in range(600):
        records = read_records(folder)
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            break
        time.sleep(0.1)
    return records


def read_records(folder: Path) -> list[Any]:
    """Parse protobuf records in LevelDB's log format; wandb 0.31 has no reader in Python.

    A 7-byte header, then blocks of 32 KiB. Each fragment is a checksum (4 bytes), a length (2), a
    type (1: whole; 2 to 4: first, middle, last) and the data.
    """
    from wandb.proto import wandb_internal_pb2

    files = [path.read_bytes() for path in folder.glob("wandb/offline-run-*/*.wandb")]
    data, position, payload, records = b"".join(files), 7, b"", []
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        payload += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            records.append(wandb_internal_pb2.Record.FromString(payload))
            payload = b""
    return records
