"""Float32 matrix products of linear layers through oneDNN on a CPU, where that is faster.

torch multiplies float32 matrices with MKL, which runs below the speed of AVX-512 on some AMD
processors. The oneDNN operator is private to torch, so it is used only if it exists and wins a
timing. Both round differently.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from unipeft_run.training.compute.linears import Forward, plain_linears

SIZE = 512  # rows and columns of the timed product
ROUNDS = 40
MIN_GAIN = 1.5


def has_onednn() -> bool:
    """Return whether this torch has the operator."""
    backend: Any = torch.backends.mkldnn
    return backend.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b through oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Product(torch.autograd.Function):
    """x W^T + b, with all three products of forward and backward through oneDNN."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, transposed: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, transposed)
        ctx.has_bias = bias is not None and bias.requires_grad
        return multiply(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, transposed = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.size(-1))
        for_x = multiply(gradient, transposed) if ctx.needs_input_grad[0] else None
        for_weight = None if x is None else multiply(rows.mT, x.reshape(-1, x.size(-1)).mT)
        for_bias = rows.sum(0) if ctx.has_bias else None
        return for_x, for_weight, for_bias, None


class OneDnnLinear:
    """The forward pass of a linear layer through oneDNN. W^T of a frozen W is stored."""

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear
        frozen = not linear.weight.requires_grad
        self.transposed = linear.weight.detach().mT.contiguous() if frozen else None

    def __call__(self, x: Tensor) -> Tensor:
        weight, bias = self.linear.weight, self.linear.bias
        if x.dtype != torch.float32 or not x.numel():
            return F.linear(x, weight, bias)
        transposed = weight.detach().mT if self.transposed is None else self.transposed
        product: Any = _Product.apply  # torch leaves it untyped
        # rows: the operator's result for more dimensions is a view, which must not be modified
        rows: Tensor = product(x.reshape(-1, x.size(-1)), weight, bias, transposed)
        return rows.view(*x.shape[:-1], rows.size(-1))


def onednn_linears(model: nn.Module) -> dict[nn.Linear, Forward]:
    """Return a `OneDnnLinear` for each linear layer of `model`."""
    return {module: OneDnnLinear(module) for module in plain_linears(model)}


@cache
def is_onednn_faster() -> bool:
    """Time a product in both libraries, in turn, on one thread; needs some 0.2 s.

    The answer decides rounding, so it must not depend on the machine's load. On a busy machine,
    several threads would wait for each other, and the waiting would count. Of many short products,
    the fastest was not disturbed.
    """
    x = weight = torch.ones(SIZE, SIZE)
    with _one_thread():
        seconds = [(_time(F.linear, x, weight), _time(multiply, x, weight)) for _ in range(ROUNDS)]
    plain, onednn = (min(column) for column in zip(*seconds, strict=True))
    return plain > MIN_GAIN * onednn


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _time(product: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> float:
    """Return the processor time of a product in seconds."""
    start = time.thread_time()
    product(x, weight)
    return time.thread_time() - start
