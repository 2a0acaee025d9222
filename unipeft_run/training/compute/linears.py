"""Replace the forward pass of linear layers: frozen weights in half precision, or oneDNN products.

Replacements act only inside a context, so that evaluation, folding and checkpoints see the layers
as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

Forward = Callable[[Tensor], Tensor]


def plain_linears(model: nn.Module) -> list[nn.Linear]:
    """Return the linear layers with float32 weights, except the head, which the loss applies.

    Subclasses and replaced forwards are left out, because they may compute something else.
    """
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and "forward" not in vars(module)
        and module.weight.dtype == torch.float32
        and module is not head
    ]


@contextmanager
def replaced_forwards(replacements: Mapping[nn.Linear, Forward]) -> Iterator[None]:
    """Call the replacement of each layer in place of its forward inside this context."""
    for module, forward in replacements.items():
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module in replacements:
            del module.__dict__["forward"]


class CastLinear:
    """x W^T + b under autocast, with frozen W and b cast once instead of at every call.

    The products are equal bit for bit: autocast casts to the same values. A trained bias is cast
    by autocast as usual.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        self.weight = linear.weight.detach().to(dtype)
        bias = linear.bias
        self.bias = bias if bias is None or bias.requires_grad else bias.detach().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def cast_frozen_linears(model: nn.Module, dtype: torch.dtype) -> dict[nn.Linear, Forward]:
    """Return a `CastLinear` for each linear layer of `model` with a frozen weight.

    Returns none if the copies would take more than half of a GPU's free memory: autocast, which
    casts at every call, gives the same bits.
    """
    frozen = [module for module in plain_linears(model) if not module.weight.requires_grad]
    needed = sum(module.weight.numel() for module in frozen) * dtype.itemsize
    if frozen and needed > free_memory(frozen[0].weight.device) / 2:
        return {}
    return {module: CastLinear(module, dtype) for module in frozen}


def free_memory(device: torch.device) -> float:
    """Return the free memory of a GPU in bytes, or infinity for another device."""
    if device.type != "cuda":
        return math.inf
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached
