"""Forward and backward of a micro-batch as CUDA graphs, one per shape of batch.

A graph starts its thousands of kernels with one call, so that the host no longer limits the GPU. It
runs the kernels of the eager step, with all masks passed in full, on inputs and gradients with
fixed addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from unipeft_run.errors import UserError
from unipeft_run.training.compute.gradients import FlatGradients
from unipeft_run.training.compute.memories import SharedMemories
from unipeft_run.training.compute.shapes import BatchGrid, Shape, shape_of
from unipeft_run.training.state import isolated_rng

Inputs = Mapping[str, Tensor]
Weight = Tensor | float
Run = Callable[[Inputs, Weight], Tensor]  # (batch, weight) -> loss; adds to the gradients


class Recorder(Protocol):
    """Records the kernels of a function without arguments."""

    def warm_up(self, function: Callable[[], object]) -> None: ...

    def record(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]: ...


class CudaRecorder:
    """Records CUDA graphs, which share one memory pool."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]

    def warm_up(self, function: Callable[[], object]) -> None:
        """Call `function` once on another stream, as libraries initialise at their first use."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            function()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.empty_cache()  # the graph allocates anew, in its own pool

    def record(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Return a function that repeats the kernels of `function` and returns its result."""
        graph = torch.cuda.CUDAGraph()
        # calls of other threads must not abort the recording
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            result = function()

        def replay() -> Tensor:
            graph.replay()
            return result.clone()  # the next graph reuses its memory

        return replay


@dataclass(frozen=True)
class RecordedStep:
    """The recorded step of one shape, with the tensors that it reads."""

    batch: Inputs
    weight: Tensor
    replay: Callable[[], Tensor]

    def __call__(self, batch: Inputs, weight: float) -> Tensor:
        for name, tensor in self.batch.items():
            tensor.copy_(batch[name], non_blocking=True)
        self.weight.fill_(weight)
        return self.replay()


class GraphedStep:
    """step(batch, weight) -> loss, which adds the gradients of `parameters`.

    `run` computes the step for tensors on `device`; the parameters of `memories` get their
    gradients after it. `unscale` divides all gradients by fp16's loss scale. A shape is recorded
    when it first occurs, after one call of `run` whose gradients are discarded; neither advances
    the random states.
    """

    def __init__(
        self,
        run: Run,
        recorder: Recorder,
        grid: BatchGrid,
        parameters: Sequence[nn.Parameter],
        memories: SharedMemories | None,
        device: torch.device,
        unscale: Callable[[], None],
    ) -> None:
        self.run, self.recorder, self.grid, self.device = run, recorder, grid, device
        self.parameters, self.memories, self.unscale = parameters, memories, unscale
        self.gradients: FlatGradients | None = None
        self.recorded: dict[Shape, RecordedStep] = {}

    def __call__(self, batch: Inputs, weight: float) -> Tensor:
        padded = self._pin(self.grid.pad(batch))
        shape = shape_of(padded)
        if shape not in self.recorded:
            self.recorded[shape] = self._record(padded)
        return self.recorded[shape](padded, weight)

    def clip(self, max_norm: float) -> Tensor:
        """Clip the gradients; return their norm before."""
        assert self.gradients is not None, "a step comes first"
        self.unscale()
        return self.gradients.clip(max_norm)

    def clear(self) -> None:
        """Set the gradients to zero."""
        if self.gradients is not None:
            self.gradients.clear()

    def _pin(self, batch: Inputs) -> Inputs:
        if self.device.type != "cuda":
            return batch
        return {name: tensor.pin_memory() for name, tensor in batch.items()}

    def _record(self, batch: Inputs) -> RecordedStep:
        static = {name: tensor.to(self.device) for name, tensor in batch.items()}
        weight = torch.ones((), dtype=torch.float64, device=self.device)

        def function() -> Tensor:
            return self.run(static, weight)

        try:
            with isolated_rng(self.device):
                self._warm_up(function)
                return RecordedStep(static, weight, self.recorder.record(function))
        except RuntimeError as error:  # also out of memory: a graph has its own pool
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"this step cannot be recorded as a CUDA graph ({reason}); set compute.graphs=false"
            ) from error

    def _warm_up(self, function: Callable[[], Tensor]) -> None:
        """Call `function` and restore the gradients; the first call finds which there are."""
        kept = [*(self.gradients.buffers if self.gradients else [])]
        kept += self.memories.gradients if self.memories else []
        copies = [tensor.clone() for tensor in kept]
        self.recorder.warm_up(function)
        for tensor, values in zip(kept, copies, strict=True):
            tensor.copy_(values)
        if self.gradients is None:
            later = self.memories.parameters() if self.memories else set()
            received = [p for p in self.parameters if p.grad is not None or p in later]
            self.gradients = FlatGradients(received)
        has_gradient = {p for p in self.parameters if p.grad is not None}
        assert has_gradient == set(self.gradients.parameters), "every shape trains the same"
