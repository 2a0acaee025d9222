"""Run training and decoder steps on fake CUDA tensors, with CUDA's autocast. A script.

    python tests/support/stand_in_gpu.py LIBRARY train PRECISION FAMILY METHOD...
    python tests/support/stand_in_gpu.py LIBRARY generate BEAMS FAMILY METHOD...

LIBRARY is `stand_in_gpu.cpp`, compiled; it must be loaded before torch. Fake tensors have a device
and a type, but no values: an operator with tensors of two devices or of wrong types fails, and so
does a host that reads a value.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

ctypes.CDLL(sys.argv[1])

import torch  # noqa: E402
from attached_models import attach_method  # noqa: E402
from tiny_compute import GRID, micro_batches  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.amp import autocast_mode  # noqa: E402

from unipeft_run import generate  # noqa: E402
from unipeft_run.evaluation.generation import StepGraphs, encoder_decoder  # noqa: E402
from unipeft_run.evaluation.generation.beam_search import RULES  # noqa: E402
from unipeft_run.evaluation.generation.search import Search  # noqa: E402
from unipeft_run.training import accumulation  # noqa: E402
from unipeft_run.training.accumulation import GradientAccumulator  # noqa: E402
from unipeft_run.training.compute import graphs, linears  # noqa: E402
from unipeft_run.training.compute.plan import ComputePlan  # noqa: E402
from unipeft_run.training.losses import ClassificationLoss, SequenceLoss  # noqa: E402
from unipeft_run.training.micro_batches import MicroBatch  # noqa: E402
from unipeft_run.training.optim import build_optimizer_and_schedule  # noqa: E402

TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Repeater:
    """Calls the function where a GPU would repeat its kernels."""

    def __init__(self, purpose: str = "") -> None:
        del purpose

    def warm_up(self, function: Callable[[], object]) -> None:
        function()

    def record(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return lambda: function().clone()


class StandInAccelerator:
    """The part of accelerate's Accelerator that computes gradients."""

    device = torch.device("cuda")

    def __init__(self, dtype: torch.dtype | None) -> None:
        self.dtype = dtype

    def autocast(self, handler: Any) -> Any:
        on = self.dtype is not None
        return torch.autocast("cuda", self.dtype, on, cache_enabled=handler.cache_enabled)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def unscale_gradients(self) -> None: ...


def move(model: nn.Module) -> None:
    """Replace all parameters and buffers by fake CUDA tensors."""
    moved: dict[Tensor, Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and tensor not in moved:
                    new = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    is_parameter = isinstance(tensor, nn.Parameter)
                    moved[tensor] = nn.Parameter(new, tensor.requires_grad) if is_parameter else new
                if tensor is not None:
                    tensors[name] = moved[tensor]


def train(precision: str, family: str, method: str) -> None:
    """Make two updates with graphs."""
    accumulation.CudaRecorder = Repeater  # type: ignore[misc, assignment]
    accumulation.float = lambda norm: norm  # type: ignore[attr-defined]  # reads after an update
    accumulation.micro_batch_weights = lambda batches, *_: [1.0] * len(batches)
    graphs.isolated_rng = lambda device: nullcontext()
    linears.free_memory = lambda device: math.inf
    Tensor.pin_memory = lambda tensor: tensor  # type: ignore[assignment, method-assign]
    model, dtype = attach_method(method, family)[0].train(), TYPES[precision]
    shapes = [batch.batch for batch in micro_batches(family, 1)]
    with FakeTensorMode():
        move(model)
        accumulator = GradientAccumulator(
            StandInAccelerator(dtype),  # type: ignore[arg-type]
            model,
            ClassificationLoss(0.1) if family == "roberta" else SequenceLoss(0.1),
            accumulation=3,
            weighting="targets",
            max_grad_norm=1.0,
            parallel="ddp",
            autocast=dtype,
            grid=GRID,
        )
        accumulator._prepare(ComputePlan(graphs=True))
        batches = [MicroBatch(fake(batch, "cpu")) for batch in shapes]
        optimizer, _ = build_optimizer_and_schedule(
            model, 10, name="adamw_official", lr=1e-3, weight_decay=0.01
        )
        for _ in range(2):
            accumulator.accumulate(batches)
            optimizer.step()
            accumulator.clear()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(gradient.is_cuda for gradient in gradients)


def search(beams: str, family: str, method: str) -> None:
    """Generate with recorded steps, and without."""
    encoder_decoder.bool = lambda value: False  # type: ignore[attr-defined]  # reads before steps
    Search.run = advance_to_the_end  # type: ignore[method-assign]
    model = attach_method(method, family)[0].eval()
    decoding = {
        "num_beams": int(beams),
        "max_length": 9,
        "min_length": 3,
        "no_repeat_ngram_size": 2,
        "forced_eos": True,
    }
    with FakeTensorMode(), torch.no_grad():
        move(model)
        ids = torch.ones(5, 12, dtype=torch.long, device="cuda")
        sources = {"input_ids": ids, "attention_mask": ids, "decoding": decoding}
        with StepGraphs(model, Repeater()) as recorded:
            for steps in (None, recorded, recorded):
                for rules in RULES:
                    tokens = generate(model, **sources, rules=rules, graphs=steps)
                    assert tokens.is_cuda and tokens.shape == (5, 9)


def advance_to_the_end(search: Search) -> Tensor:
    """Replace `Search.run`, which reads whether sources are finished."""
    for length in range(1, search.settings.max_length):
        search.advance(length)
    search._write(torch.arange(len(search.sources), device=search.device))
    return search.targets


def fake(batch: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    return {n: torch.empty(t.shape, dtype=t.dtype, device=device) for n, t in batch.items()}


if __name__ == "__main__":
    autocast_mode.amp_definitely_not_available = lambda: False  # type: ignore[assignment]
    torch.cuda.is_bf16_supported = lambda *given: True  # type: ignore[assignment]
    _, _, kind, setting, family, *methods = sys.argv
    for method in methods:
        print(method, flush=True)
        {"train": train, "generate": search}[kind](setting, family, method)
