"""Make run folders like those of real runs, with made-up results."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from unipeft_run.config import PlannedRun, compose, plan
from unipeft_run.runs.folder import RunFolder


@cache
def planned(*overrides: str) -> PlannedRun:
    """Plan a miniature run."""
    return plan(compose(["scale=mini", *overrides]))


def resolved(*overrides: str) -> dict[str, Any]:
    """Return the configuration of a miniature run as plain data."""
    return planned(*overrides).config.plain()


def make_run(*overrides: str, primary: float = 80.0, **changed: Any) -> Path:
    """Make the folder of a finished run with the primary metric `primary`, in ./outputs.

    `changed`: metrics to add or replace.
    """
    run = planned(*overrides)
    config, folder = run.config, run.folder
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.plain()))
    (folder / "status.json").write_text(json.dumps({"state": "done", "step": 600}))
    name = {"xsum": "rouge2", "wmt16_en_ro": "bleu"}.get(config.task.name, "accuracy")
    metrics = {
        "method": config.method,
        "seed": config.seed,
        "scale": config.scale,
        "task": config.task.name,
        "backbone": config.backbone.name,
        "run_id": folder.name,
        "primary": f"test/{name}",
        "test/loss": 0.5,
        f"test/{name}": primary,
        f"trivial/{name}": 55.5,
        "trivial/name": "naive Bayes",
        "signatures": {name: "percent", "per_example": "percent"},
        "train/tokens_per_second": 1000.0,
        "parameters/trained": 4_302_752,
        "parameters/stored": 371_328,
        "parameters/backbone": 22_713_986,
        "parameters/stored_percent": 1.6348,
        "wall_seconds": 60.0,
        **changed,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def make_sst2_run(root: Path, state: str = "done", *overrides: str) -> Path:
    """Make the folder of a small sst2 run in `state` below `root`; a `stale` run has no process."""
    run = planned("task=sst2", "method=mam", f"output={root}", *overrides)
    folder = RunFolder(run.folder)
    folder.write_text("config.yaml", yaml.safe_dump(run.config.plain()))
    recorded: Any = "running" if state == "stale" else state
    error = "the loss is nan at step 4" if state == "diverged" else None
    folder.mark(recorded, step=3, total=10, error=error)
    records = [{"step": 3, "validation/loss": 0.5, "validation/accuracy": 81.5}]
    folder.write_text("train.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    if state == "done":
        folder.write_json("metrics.json", {"primary": "test/accuracy", "test/accuracy": 90.25})
    return folder.path
