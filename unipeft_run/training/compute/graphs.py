"""Forward and backward of a micro-batch as CUDA graphs, one per shape of batch.

A graph starts its thousands of kernels with one call, so that the host no longer limits the GPU. It
runs the operators of the eager step, on inputs and gradients with fixed addresses. Masks are always
passed in full, so attention may use other kernels.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unipeft_run.training.compute.batches import Inputs, pin
from unipeft_run.training.compute.gradients import FlatGradients
from unipeft_run.training.compute.memories import SharedMemories
from unipeft_run.training.compute.shapes import BatchGrid, Shape, shape_of
from unipeft_run.training.state import isolated_rng

Weight = Tensor | float
Run = Callable[[Inputs, Weight], Tensor]  # (batch, weight) -> loss; adds to the gradients

log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Records the kernels of a function without arguments."""

    def warm_up(self, function: Callable[[], object]) -> None: ...

    def record(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]: ...


class CudaRecorder:
    """Records CUDA graphs, which share one memory pool.

    Graphs of one `purpose` share a stream for the whole process. cuBLAS has a workspace per stream,
    which graphs write to, and which torch frees as soon as one graph of that stream is deleted. So
    graphs that are deleted at different times need different streams.
    """

    def __init__(self, purpose: str) -> None:
        gc.collect()  # deletes the graphs of earlier runs before those of this one are recorded
        self.pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        self.stream = _stream_of(purpose, torch.cuda.current_device())

    def warm_up(self, function: Callable[[], object]) -> None:
        """Call `function` once: libraries initialise at first use, which cannot be recorded."""
        self.stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self.stream):
                function()
        finally:
            torch.cuda.current_stream().wait_stream(self.stream)
        torch.cuda.empty_cache()  # the graph allocates anew, in its own pool

    def record(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Return a function that repeats the kernels of `function` and returns its result."""
        graph = torch.cuda.CUDAGraph()
        options: dict[str, Any] = {
            "pool": self.pool,
            "stream": self.stream,
            "capture_error_mode": "thread_local",  # other threads may use the GPU
        }
        try:
            # torch restores the current stream only after a recording that succeeds
            with torch.cuda.stream(self.stream), torch.cuda.graph(graph, **options):
                result = function()
        except RuntimeError:
            self._allow_random_numbers()
            raise

        def replay() -> Tensor:
            graph.replay()
            return result.clone()  # the next graph reuses its memory

        return replay

    def _allow_random_numbers(self) -> None:
        """Record one kernel: a failed recording forbids random numbers, a good one allows them."""
        recording = torch.cuda.graph(torch.cuda.CUDAGraph(), stream=self.stream)
        with suppress(RuntimeError), torch.cuda.stream(self.stream), recording:
            torch.zeros((), device="cuda")


@cache
def _stream_of(purpose: str, device: int) -> Any:
    del purpose
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def describe_failure(error: RuntimeError) -> str:
    """Return the first line of the reason why a recording failed.

    A failure inside a recording invalidates it, and ending it then raises another error.
    """
    first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
    return str(first).partition("\n")[0]


@dataclass(frozen=True)
class StaticStep:
    """The step of one shape, with the tensors that it reads."""

    batch: Inputs
    weight: Tensor
    run: Callable[[], Tensor]

    def __call__(self, batch: Inputs, weight: float) -> Tensor:
        for name, tensor in self.batch.items():
            tensor.copy_(batch[name], non_blocking=True)
        self.weight.fill_(weight)
        return self.run()


class GraphedStep:
    """step(batch, weight) -> loss, which adds the gradients of `parameters`.

    `run` computes the step for tensors on `device`; the parameters of `memories` get their
    gradients after it. `unscale` divides all gradients by fp16's loss scale. A shape is recorded
    when it first occurs, after one call of `run` whose gradients are discarded; neither advances
    the random states. If a recording fails, all steps are computed without graphs from then on.
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
        self.run, self.grid, self.device = run, grid, device
        self.recorder: Recorder | None = recorder
        self.parameters, self.memories, self.unscale = parameters, memories, unscale
        self.gradients: FlatGradients | None = None
        self.steps: dict[Shape, StaticStep] = {}

    def __call__(self, batch: Inputs, weight: float) -> Tensor:
        padded = pin(self.grid.pad(batch), self.device)
        shape = shape_of(padded)
        if shape not in self.steps:
            self.steps[shape] = self._prepare(padded)
        return self.steps[shape](padded, weight)

    def clip(self, max_norm: float) -> Tensor:
        """Clip the gradients; return their norm before."""
        assert self.gradients is not None, "a step comes first"
        self.unscale()
        return self.gradients.clip(max_norm)

    def clear(self) -> None:
        """Set the gradients to zero."""
        if self.gradients is not None:
            self.gradients.clear()

    def _prepare(self, batch: Inputs) -> StaticStep:
        static = {name: tensor.to(self.device) for name, tensor in batch.items()}
        weight = torch.ones((), dtype=torch.float64, device=self.device)

        def function() -> Tensor:
            return self.run(static, weight)

        if self.recorder is not None:
            try:
                return StaticStep(static, weight, self._record(self.recorder, function))
            except RuntimeError as error:  # also out of memory: a graph has its own pool
                self._stop_recording(error)
        return StaticStep(static, weight, function)

    def _record(self, recorder: Recorder, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        with isolated_rng(self.device):
            self._warm_up(recorder, function)
            return recorder.record(function)

    def _stop_recording(self, error: RuntimeError) -> None:
        if self.gradients is None:  # the first step fails without a graph too
            raise error
        reason = describe_failure(error)
        log.warning("From here on, training steps run without CUDA graphs: %s.", reason)
        self.recorder = None
        self.steps.clear()  # also the recorded ones: all steps are computed in one way

    def _warm_up(self, recorder: Recorder, function: Callable[[], Tensor]) -> None:
        """Call `function` and restore the gradients; the first call finds which there are."""
        kept = [*(self.gradients.buffers if self.gradients else [])]
        kept += self.memories.gradients if self.memories else []
        copies = [tensor.clone() for tensor in kept]
        try:
            recorder.warm_up(function)
        finally:
            for tensor, values in zip(kept, copies, strict=True):
                tensor.copy_(values)
        if self.gradients is None:
            later = self.memories.parameters() if self.memories else set()
            received = [p for p in self.parameters if p.grad is not None or p in later]
            self.gradients = FlatGradients(received)
        has_gradient = {p for p in self.parameters if p.grad is not None}
        assert has_gradient == set(self.gradients.parameters), "every shape trains the same"
