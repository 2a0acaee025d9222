"""Gradient accumulation: the clipped gradients of one update from its micro-batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.parallel import (
    Parallel,
    all_reduce_gradients,
    gather_full,
    no_sync,
    wrap_model,
)
from unipeft_run.training.micro_batches import (
    Batch,
    MicroBatch,
    Weighting,
    micro_batch_weights,
)

LossFn = Callable[[nn.Module, Batch], tuple[Tensor, int]]


class GradientAccumulator:
    """Runs forward and backward of `model` on this rank's micro-batches and averages over ranks."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        loss_fn: LossFn,
        *,
        weighting: Weighting,
        max_grad_norm: float | None,
        parallel: Parallel,
    ) -> None:
        self.accelerator, self.device = accelerator, accelerator.device
        self.loss_fn, self.weighting = loss_fn, weighting
        self.max_grad_norm = max_grad_norm or math.inf
        self.replica = wrap_model(model, parallel, self.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def accumulate(self, micro_batches: Sequence[MicroBatch]) -> tuple[float, float]:
        """Compute the gradients of an update and clip them.

        Returns this rank's part of the update's loss, and the gradient norm before clipping.
        """
        weights = micro_batch_weights(micro_batches, self.weighting, self.device)
        *first, last = [(m.batch, w) for m, w in zip(micro_batches, weights, strict=True)]
        with no_sync(self.replica):
            losses = [self._backward(batch, weight, len(weights)) for batch, weight in first]
        losses.append(self._backward(*last, len(weights)))
        all_reduce_gradients(self.replica, self.parameters)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm)
        return float(torch.stack(losses).mean()), float(gather_full(norm))

    def _backward(self, batch: Batch, weight: float, count: int) -> Tensor:
        """Add one of `count` micro-batches to the gradients; return this rank's loss."""
        on_device = {name: tensor.to(self.device) for name, tensor in batch.items()}
        with self.accelerator.autocast():
            loss, _ = self.loss_fn(self.replica, on_device)
        loss = loss * weight  # gradients are averaged over the ranks later
        self.accelerator.backward(loss / count)
        return loss.detach() / processes.world_size()
