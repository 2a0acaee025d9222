"""Compute linear layers through oneDNN, for faster generation on a CPU.

A decoder step multiplies a few rows by large matrices. torch converts the layout of each matrix in
every call; here it is packed once per search. For the encoder's large products, torch's MKL takes a
slow path on some processors with AVX-512, which oneDNN does not. Products round differently from
`F.linear`. The choice depends on the processor alone, so the same command gives the same results.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.training.compute.onednn import has_onednn, multiply
from unipeft_run.training.distributed.parallel import is_sharded

MIN_PRODUCTS = 16  # packing pays off after about eight
MAX_PACKED_ROWS = 256  # with more rows, the layout of the weight matters little


@contextmanager
def onednn_linears(model: nn.Module, products: int) -> Iterator[None]:
    """Replace the forward pass of every supported linear layer inside this context.

    `products`: how often each weight is used; below MIN_PRODUCTS, no weight is packed. Gradients
    are not supported. The MLP of a prefix is left alone: what is stored of it is computed without
    oneDNN, and an evaluation of the stored delta must give the same result.
    """
    types = () if is_sharded(model) else _supported_types(next(model.parameters()).device)
    generators = {m for form in model.modules() if isinstance(form, Memory) for m in form.modules()}
    linears = [
        module
        for module in model.modules()
        if _is_replaceable(module, types) and module not in generators
    ]
    for module in linears:
        module.__dict__["forward"] = Product(module, packs=products >= MIN_PRODUCTS)
    try:
        yield
    finally:
        for module in linears:
            del module.__dict__["forward"]


class Product:
    """x W^T + b. W is packed at its first product with few rows, because some W have none."""

    def __init__(self, linear: nn.Module, *, packs: bool) -> None:
        self.linear: Any = linear
        self.packs = packs
        self.packed: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        weight, bias = self.linear.weight, self.linear.bias
        rows = x.numel() // x.size(-1)
        if self.packs and 0 < rows <= MAX_PACKED_ROWS:
            if self.packed is None:
                self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
            weight = self.packed
        elif rows == 0 or not _has_avx512():
            return F.linear(x, weight, bias)
        return multiply(x, weight, bias)


def _supported_types(device: torch.device) -> tuple[torch.dtype, ...]:
    """Return the types for which this torch and this processor have the (private) operators."""
    if device.type != "cpu" or torch.is_autocast_enabled("cpu") or not has_onednn():
        return ()
    has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if has_bf16 else (torch.float32,)


def _has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def _is_replaceable(module: nn.Module, types: tuple[torch.dtype, ...]) -> bool:
    # no subclasses and no replaced forward: they may compute something else
    plain = type(module) is nn.Linear and "forward" not in vars(module)
    return plain and module.weight.dtype in types
