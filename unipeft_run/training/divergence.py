"""Divergence: a loss, gradient, weight or optimiser state that is NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

SMALLEST_SCALE = 2.0**-14  # of the fp16 loss; a gradient that overflows even below it has diverged


class Diverged(RuntimeError):
    """A loss, gradient or weight is not finite at update `step`. No such state is saved."""

    def __init__(self, problem: str, step: int) -> None:
        super().__init__(problem)
        self.step = step


def check_finite(name: str, value: float, step: int) -> None:
    """Raise `Diverged` if `value`, described by `name`, is NaN or infinite."""
    if not math.isfinite(value):
        raise Diverged(f"the {name} is {value} at step {step}", step)


def check_loss_scale(scaler: GradScaler, step: int) -> None:
    """Raise `Diverged` if the gradient overflows fp16 even at a very small loss scale."""
    if scaler.get_scale() < SMALLEST_SCALE:
        raise Diverged(f"the gradient overflows fp16 at every loss scale at step {step}", step)


def find_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with a NaN or an infinity; None if all are finite.

    Synchronises with the device only once.
    """
    checked = {name: t for name, t in tensors.items() if t.is_floating_point() and t.numel()}
    if not checked:
        return None
    device = next(iter(checked.values())).device
    flags = [t.detach().isfinite().all().to(device) for t in checked.values()]
    finite = torch.stack(flags).tolist()
    return next((name for name, ok in zip(checked, finite, strict=True) if not ok), None)
