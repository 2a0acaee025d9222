"""Make finished runs in a second, without training: a small backbone and a random delta."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import tiny_text
import torch
import yaml
from tiny_recipe import BACKBONES, row

from unipeft_run.config import PlannedRun, compose, plan
from unipeft_run.deltas.build import build_model, run_recipe
from unipeft_run.deltas.delta_file import inference_tensors, save_delta
from unipeft_run.runs.folder import RunFolder

EXAMPLES = 9
MODELS: dict[str, Any] = {
    "bart": tiny_text.bart,
    "mbart": tiny_text.mbart,
    "roberta": partial(tiny_text.roberta, num_labels=3),
}
SHORT = ("evaluation.decoding.max_length=12", "evaluation.decoding.num_beams=3")


def write_inputs(folder: Path, task: str) -> None:
    """Write data of `task`, and a small backbone with weights and a tokenizer, to `folder`."""
    family = BACKBONES[task]
    tokenizer = tiny_text.bart_tokenizer(tiny_text.CODES if family == "mbart" else None)
    tokenizer.save_pretrained(folder / family)
    MODELS[family](len(tokenizer)).save_pretrained(folder / family)
    (folder / task).mkdir()
    for split in ("train", "validation", "test"):
        rows = (json.dumps(row(task, number)) for number in range(EXAMPLES))
        (folder / task / f"{split}.jsonl").write_text("\n".join(rows) + "\n")


def plan_finished(folder: Path, task: str, *overrides: str) -> PlannedRun:
    """Plan a run of `task` on the inputs in `folder`."""
    paths = f"task.path={folder / task}", f"backbone.path={folder / BACKBONES[task]}"
    short = () if BACKBONES[task] == "roberta" else SHORT
    lengths = ("task.max_source_length=40",)
    output = f"output={folder / 'outputs'}"
    return plan(compose([f"task={task}", *paths, *lengths, *short, output, *overrides]))


def make_finished(folder: Path, task: str, *overrides: str) -> Path:
    """Write the folder of a finished run with a random delta."""
    if not (folder / task).exists():
        write_inputs(folder, task)
    planned = plan_finished(folder, task, *overrides)
    model = build_model(planned.config, str(planned.config.backbone.path), inference=True)
    recipe = run_recipe(planned.config, model)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for _, tensor in inference_tensors(model):
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
    target = RunFolder(planned.folder)
    target.write_text("config.yaml", yaml.safe_dump(planned.config.plain()))
    target.write_json("contents.json", dict(planned.contents))
    target.write_json("metrics.json", _metrics(planned))
    target.mark("done", step=3, total=3)
    save_delta(model, planned.folder, recipe)
    return planned.folder


def _metrics(planned: PlannedRun) -> dict[str, Any]:
    return {"task": planned.config.task.name, "test/loss": 0.25, "run_id": planned.run_id}
