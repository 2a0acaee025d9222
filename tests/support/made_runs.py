"""Run folders as a finished run leaves them, with made-up figures."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from unipeft_run.config import compose, resolve, run_folder


@cache
def resolved(*words: str) -> dict[str, Any]:
    return resolve(compose(["scale=mini", *words]))


def make_run(*words: str, primary: float = 80.0, **changed: Any) -> Path:
    """The folder of a run that reached `primary`, in outputs/ here; `changed`: other metrics."""
    config = resolved(*words)
    folder = run_folder(config)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "status.json").write_text(json.dumps({"state": "done", "step": 600}))
    name = {"xsum": "rouge2", "wmt16_en_ro": "bleu"}.get(config["task"]["name"], "accuracy")
    metrics = {
        "method": config["method"],
        "seed": config["seed"],
        "scale": config["scale"],
        "task": config["task"]["name"],
        "backbone": config["backbone"]["name"],
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
