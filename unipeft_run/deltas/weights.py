"""Read the frozen weight matrix at a site, whatever module holds it."""

from typing import Any

import torch
from torch import nn

from unipeft_run.backbones.site import Tap


def weight_at(module: nn.Module, tap: Tap) -> torch.Tensor:
    """Return the weight [D_out, D_in] that computes h at `tap`; `module` is the tap's module."""
    owner: Any = module
    weight: torch.Tensor = owner.weight
    if not isinstance(module, nn.Linear):  # transformers' Conv1D stores [D_in, D_out]
        weight = weight.T
    return weight if tap.part is None else weight.chunk(tap.part[1])[tap.part[0]]


def bias_at(module: nn.Module, tap: Tap) -> torch.Tensor | None:
    """Return the bias [D_out] at `tap`; None if there is none."""
    bias: torch.Tensor | None = getattr(module, "bias", None)
    if bias is None or tap.part is None:
        return bias
    return bias.chunk(tap.part[1])[tap.part[0]]
