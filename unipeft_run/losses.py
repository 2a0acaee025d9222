"""Training losses: callables (model, batch) -> (mean loss, number of targets).

Shapes: B examples, T target tokens, V vocabulary entries, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unipeft_run.batching import IGNORED

Batch = Mapping[str, Tensor]


class Loss(Protocol):
    """What a trainer and an evaluator need: the mean over the batch's targets, and their number."""

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]: ...


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """(1 - e) * NLL + e * mean_v(-log p_v), both averaged over labels other than -100.

    `logits` [..., V], `labels` [...]; e = `smoothing` is spread over all V entries, the gold one
    included, and at least in float32, like the LabelSmoother of the paper's code (which sums over
    V in float32 for float64 logits too: it differs by 1e-7 there).
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(
        wide.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, label_smoothing=smoothing
    )


class SequenceLoss:
    """Label-smoothed cross-entropy of a decoder's predictions, per target token."""

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        # without labels: the model itself computes no loss
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = model(**inputs, use_cache=False).logits  # [B, T, V]
        labels = batch["labels"]
        return cross_entropy(logits, labels, self.smoothing), int((labels != IGNORED).sum())


class ClassificationLoss:
    """Cross-entropy of the classes, per example."""

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        labels = batch["labels"]
        return cross_entropy(class_logits(model, batch), labels), len(labels)


def class_logits(model: nn.Module, batch: Batch) -> Tensor:
    """[B, C]"""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert isinstance(logits, Tensor)
    return logits
