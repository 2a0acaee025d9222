"""Six updates against traces of the official code in float64: loss, lr, gradient norm, weights."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from golden_cases import GOLDEN, case_inputs, load_case
from safetensors.torch import load_file

from unipeft_run.deltas.attach import find_deltas
from unipeft_run.interop.official_names import named_parameters
from unipeft_run.runs.folder import RunFolder
from unipeft_run.tracking.jsonl import Jsonl
from unipeft_run.training.losses import SequenceLoss
from unipeft_run.training.optim import build_optimizer_and_schedule, parameter_groups
from unipeft_run.training.trainer import Trainer

CASES = ("bart__full_ft", "bart__pa_ffn_learnable_scalar")


@pytest.mark.parametrize("case", CASES)
def test_trace(case: str, tmp_path: Path) -> None:
    recorded = json.loads((GOLDEN / "traces" / f"{case}.json").read_text())
    finals = load_file(GOLDEN / "traces" / f"{case}.safetensors")
    finals = {k.removeprefix("final/").removeprefix("pretrained_model."): finals[k] for k in finals}
    hyper = recorded["hyper"]
    _, tensors, model = load_case(case)
    model.config.use_cache = False
    decayed, _ = parameter_groups(model, 0.1)
    assert len(decayed["params"]) == len(recorded["decayed"])

    optim = partial(
        build_optimizer_and_schedule,
        name="adamw_official",
        lr=hyper["lr"],
        betas=hyper["betas"],
        eps=hyper["eps"],
        weight_decay=hyper["weight_decay"],
        warmup_steps=hyper["warmup"],
    )
    Trainer(
        model,
        [case_inputs(tensors)],  # type: ignore[arg-type]
        SequenceLoss(hyper["label_smoothing"]),
        optim=lambda model, _: optim(model, hyper["total"]),
        folder=RunFolder(tmp_path),
        trackers=[Jsonl(tmp_path / "train.jsonl")],
        max_steps=hyper["steps"],
        max_grad_norm=hyper["max_grad_norm"],
        log_every=1,
        precision="fp32",
    ).fit()

    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    for line, theirs in zip(lines, recorded["trace"], strict=True):
        ours = json.loads(line)
        # the official label smoother sums log-probabilities in float32
        assert ours["train/loss"] == pytest.approx(theirs["loss"], rel=1e-6)
        assert ours["train/lr"] == pytest.approx(theirs["lr"], rel=1e-12)
        assert ours["train/grad_norm"] == pytest.approx(theirs["grad_norm_before_clip"], rel=1e-6)
    pairs = [
        (parameter, finals[name][rows])
        for path, delta in find_deltas(model)
        for parameter, name, rows in named_parameters(path, delta, finals)
    ]
    pairs += [(p, finals[name]) for name, p in model.named_parameters() if name in finals]
    assert len(pairs) >= len(recorded["decayed"])
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-5, atol=1e-7)
