"""Accumulators and micro-batches of tiny models, and a recorder in place of CUDA graphs."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from unipeft_run.data.batching import Collator
from unipeft_run.training.accumulation import GradientAccumulator
from unipeft_run.training.compute.shapes import ShapeGrid
from unipeft_run.training.losses import ClassificationLoss, SequenceLoss
from unipeft_run.training.micro_batches import MicroBatch

GRID = ShapeGrid(pad_token_id=1, rows=4, longest=30, source=8, target=8)


def micro_batches(family: str, seed: int) -> list[MicroBatch]:
    """Return batches of 4, 4 and 2 examples of different lengths."""
    generator = torch.Generator().manual_seed(seed)

    def ids(length: int) -> list[int]:
        return torch.randint(5, 90, (length,), generator=generator).tolist()

    def rows(count: int, source: int) -> list[dict[str, Any]]:
        if family == "roberta":
            return [{"input_ids": ids(source + i), "labels": i % 3} for i in range(count)]
        return [{"input_ids": ids(source + i), "labels": ids(2 + 2 * i)} for i in range(count)]

    collate = Collator(1, None if family == "roberta" else 2, multiple=1)
    return [MicroBatch(collate(rows(count, n))) for count, n in ((4, 3), (4, 11), (2, 4))]


def make_accumulator(model: Any, **changed: Any) -> GradientAccumulator:
    is_text = hasattr(model, "lm_head") and hasattr(model, "final_logits_bias")
    padding = changed.pop("keeps_padding", None)
    options: dict[str, Any] = {
        "accumulation": 3,
        "weighting": "targets",
        "max_grad_norm": 1e-3,
        "parallel": "ddp",
        "grid": GRID,
        **changed,
    }
    loss = SequenceLoss(0.1, keeps_padding=padding) if is_text else ClassificationLoss(0.1)
    return GradientAccumulator(Accelerator(), model, loss, **options)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def descend(model: nn.Module) -> None:
    """Change the parameters by the clipped gradients."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 100.0 * parameter.grad


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name in theirs:
        scale = max(1e-3, float(theirs[name].abs().max()))
        assert (ours[name] - theirs[name]).abs().max() <= tolerance * scale, name
