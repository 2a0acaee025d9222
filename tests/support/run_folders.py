"""Run folders in every state, as runs leave them."""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import OmegaConf

from unipeft_run import config as configuration
from unipeft_run.runs.folder import RunFolder, State

SST2 = ("task=sst2", "method=mam", "scale=mini")
RECORDS = ({"step": 3, "validation/loss": 0.5, "validation/accuracy": 81.5}, {"step": 4, "x": 1})


def write_run(root: Path, state: str, *words: str) -> Path:
    """Write a run in `state` below the output folder `root`; return its folder."""
    cfg = configuration.compose([*SST2, f"output={root}", *words])
    folder = RunFolder(configuration.run_folder(cfg))
    folder.write_text(
        "config.yaml", OmegaConf.to_yaml(OmegaConf.create(configuration.resolve(cfg)))
    )
    error = "the loss is nan at step 4" if state == "diverged" else None
    recorded: State = "running" if state == "stale" else state  # type: ignore[assignment]
    folder.mark(recorded, step=3, total=10, error=error)
    folder.write_text("train.jsonl", "".join(json.dumps(line) + "\n" for line in RECORDS))
    if state == "done":
        folder.write_json("metrics.json", {"primary": "test/accuracy", "test/accuracy": 90.25})
    return folder.path
