"""The loss of decoder-only models, and log-likelihoods of given continuations.

Shapes: B examples, T tokens, N of them targets.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.nn import functional as F

from unipeft_run.data.batching import IGNORED
from unipeft_run.training.losses import Batch, SequenceLoss


class CausalLoss(SequenceLoss):
    """`SequenceLoss` of the next token: `labels` [B, T] are aligned with `input_ids`."""

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor]:
        return super().__call__(model, {**batch, "labels": shift_left(batch["labels"])})


def shift_left(labels: Tensor) -> Tensor:
    """Move each label [B, T] to the position that predicts it; the last position has none."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED)


def log_likelihoods(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the summed log-likelihood [B] of each row's labels, and their number [B].

    Only the N positions that predict a label pass through the head. Computed in float32 or wider.
    """
    labels = shift_left(batch["labels"])
    kept = labels != IGNORED
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    inner: Any = extract_model_from_parallel(model)
    head = inner.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, args: args[0][kept][None])
    try:
        logits = model(**inputs, use_cache=False).logits[0]  # [N, V]
    finally:
        hook.remove()
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    scores = -F.cross_entropy(wide, labels[kept], reduction="none")
    rows = kept.nonzero()[:, 0]
    sums = scores.new_zeros(len(labels)).index_add_(0, rows, scores)
    return sums, kept.sum(1)
