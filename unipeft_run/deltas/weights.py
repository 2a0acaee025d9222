"""The frozen weight matrix at a site, whatever module holds it."""

from typing import Any

import torch
from torch import nn

from unipeft_run.backbones.site import Tap


def weight_at(module: nn.Module, tap: Tap) -> torch.Tensor:
    """Return a view [D_out, D_in] of the weight at `tap`; `module` is the tap's module."""
    owner: Any = module
    weight: torch.Tensor = owner.weight
    if not isinstance(module, nn.Linear):  # transformers' Conv1D stores [D_in, D_out]
        weight = weight.T
    return weight if tap.part is None else weight.chunk(tap.part[1])[tap.part[0]]


def bias_at(module: nn.Module, tap: Tap) -> torch.Tensor | None:
    """Return a view [D_out] of the bias at `tap`; None if there is none."""
    bias: torch.Tensor | None = getattr(module, "bias", None)
    if bias is None or tap.part is None:
        return bias
    return bias.chunk(tap.part[1])[tap.part[0]]


def bias_or_zero(module: nn.Module, tap: Tap) -> torch.Tensor:
    """Return the bias at `tap`, [D_out], or zeros."""
    bias = bias_at(module, tap)
    return weight_at(module, tap).new_zeros(len(weight_at(module, tap))) if bias is None else bias


def replace_bias(module: Any, tap: Tap, bias: torch.Tensor) -> None:
    """Write the bias at `tap`, [D_out]; give a module without bias one."""
    own = bias_at(module, tap)
    if own is not None:
        own.copy_(bias)
    else:
        assert tap.part is None, "a merged matrix has a bias"
        module.bias = nn.Parameter(bias.to(module.weight), requires_grad=False)
