"""Gradient accumulation: the clipped gradients of one update from its micro-batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs
from torch import Tensor, nn

from unipeft_run.training.compute.dropout import fast_dropout
from unipeft_run.training.compute.graphs import CudaRecorder, GraphedStep
from unipeft_run.training.compute.linears import (
    Forward,
    cast_frozen_linears,
    replaced_forwards,
)
from unipeft_run.training.compute.memories import SharedMemories
from unipeft_run.training.compute.onednn import onednn_linears
from unipeft_run.training.compute.plan import ComputeOptions, ComputePlan
from unipeft_run.training.compute.shapes import BatchGrid
from unipeft_run.training.compute.step import EagerStep
from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.parallel import (
    Parallel,
    all_reduce_gradients,
    gather_full,
    is_sharded,
    no_sync,
    wrap_model,
)
from unipeft_run.training.micro_batches import (
    Batch,
    MicroBatch,
    Weighting,
    micro_batch_weights,
)

LossFn = Callable[[nn.Module, Batch], tuple[Tensor, int | Tensor]]


class GradientAccumulator:
    """Runs forward and backward of `model` on this rank's micro-batches and averages over ranks.

    `accumulation`: micro-batches per update. `grid`: the batch shapes for CUDA graphs.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        loss_fn: LossFn,
        *,
        accumulation: int,
        weighting: Weighting,
        max_grad_norm: float | None,
        parallel: Parallel,
        autocast: torch.dtype | None = None,
        grid: BatchGrid | None = None,
    ) -> None:
        self.accelerator, self.device = accelerator, accelerator.device
        self.model, self.loss_fn, self.weighting = model, loss_fn, weighting
        self.accumulation, self.autocast, self.grid = accumulation, autocast, grid
        self.max_grad_norm = max_grad_norm or math.inf
        self.replica = wrap_model(model, parallel, self.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._prepare(ComputePlan())

    def choose(self, options: ComputeOptions, recorded: Mapping[str, Any] | None) -> dict[str, Any]:
        """Prepare for the `recorded` plan, or for a new one from `options`; return the plan."""
        if recorded is None:
            plan = ComputePlan.choose(options, self.model, self.device, self.autocast)
        else:
            plan = ComputePlan.resume(recorded, self.device, self.autocast)
        self._prepare(plan)
        return plan.to_dict()

    def describe(self) -> dict[str, Any]:
        """Return the plan as it is carried out: without graphs where recording has failed."""
        graphs = isinstance(self.step, GraphedStep) and self.step.recorder is not None
        return replace(self.plan, graphs=graphs).to_dict()

    def release(self) -> None:
        """Free the graphs and copies of weights that only training needs."""
        for parameter in self.parameters:
            parameter.grad = None  # an interrupted update leaves gradients behind
        self.linears: dict[nn.Linear, Forward] = {}
        self.memories: SharedMemories | None = None
        self.step: EagerStep | GraphedStep = EagerStep(self._run, self.accelerator, self.parameters)

    def _prepare(self, plan: ComputePlan) -> None:
        self.release()
        self.plan = plan
        self.linears = self._replace_linears(plan)
        single = processes.world_size() == 1  # DDP needs all parameters in the forward pass
        self.memories = SharedMemories(self.model, self._autocast) if single else None
        self.step = self._build_step(plan)

    def accumulate(self, micro_batches: Sequence[MicroBatch]) -> tuple[float, float]:
        """Compute the gradients of an update and clip them.

        Returns this rank's part of the update's loss, and the gradient norm before clipping.
        """
        weights = micro_batch_weights(micro_batches, self.weighting, self.device)
        *first, last = [(m.batch, w) for m, w in zip(micro_batches, weights, strict=True)]
        shared = self.memories.shared() if self.memories else nullcontext()
        masks = fast_dropout() if self.device.type == "cpu" else nullcontext()
        with replaced_forwards(self.linears), masks, shared:
            with no_sync(self.replica):
                losses = [self.step(batch, weight) for batch, weight in first]
            losses.append(self.step(*last))
        all_reduce_gradients(self.replica, self.parameters)
        norm = self.step.clip(self.max_grad_norm)
        return float(torch.stack(losses).mean()), float(gather_full(norm))

    def clear(self) -> None:
        """Clear the gradients after an update."""
        self.step.clear()

    def _run(self, batch: Batch, weight: Tensor | float) -> Tensor:
        """Add one micro-batch to the gradients; return this rank's loss."""
        with self._autocast():
            loss, _ = self.loss_fn(self.replica, batch)
        if isinstance(weight, Tensor):
            weight = weight.to(loss.dtype)
        loss = loss * weight  # gradients are averaged over the ranks later
        self.accelerator.backward(loss / self.accumulation)
        return loss.detach() / processes.world_size()

    def _autocast(self) -> AbstractContextManager[None]:
        # a graph must not read casts cached before it was recorded
        handler = AutocastKwargs(cache_enabled=not self.plan.graphs)
        context: AbstractContextManager[None] = self.accelerator.autocast(handler)
        return context

    def _replace_linears(self, plan: ComputePlan) -> dict[nn.Linear, Forward]:
        if is_sharded(self.replica):
            return {}
        if self.autocast is not None:
            return cast_frozen_linears(self.model, self.autocast)
        return onednn_linears(self.model) if plan.products == "onednn" else {}

    def _build_step(self, plan: ComputePlan) -> EagerStep | GraphedStep:
        if not plan.graphs:
            return EagerStep(self._run, self.accelerator, self.parameters)
        assert self.grid is not None
        return GraphedStep(
            self._run,
            CudaRecorder("training"),
            self.grid,
            self.parameters,
            self.memories,
            self.device,
            self.accelerator.unscale_gradients,
        )
