"""Pack the weights of linear layers for oneDNN, for faster decoder steps on a CPU.

A decoder step multiplies a few rows by large matrices. torch converts the layout of each matrix in
every call; here it is converted once per search. The products round differently from `F.linear`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

PACKABLE = (torch.float32, torch.bfloat16)
MIN_STEPS = 16  # packing pays off after about eight steps


@contextmanager
def pack_linears(model: nn.Module) -> Iterator[None]:
    """Replace the forward pass of every packable linear layer inside this context."""
    packed = [module for module in model.modules() if _is_packable(module)]
    for module in packed:
        module.__dict__["forward"] = PackedProduct(module)
    try:
        yield
    finally:
        for module in packed:
            del module.__dict__["forward"]


def can_pack(device: torch.device) -> bool:
    """Return whether this torch has the (private) operators, and autocast is off."""
    if device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    backend: Any = torch.backends.mkldnn
    return backend.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class PackedProduct:
    """x W^T + b, with W packed at the first call, because some layers are never called."""

    def __init__(self, linear: nn.Module) -> None:
        self.linear: Any = linear
        self.packed: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed is None:
            rows = x.numel() // x.size(-1)
            weight = self.linear.weight.detach()
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        bias = self.linear.bias
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, bias, "none", [], "")


def _is_packable(module: nn.Module) -> bool:
    # no subclasses: they may compute something else
    return type(module) is nn.Linear and module.weight.dtype in PACKABLE
