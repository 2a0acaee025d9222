"""AdaLoRA (Zhang et al. 2023): its penalty on the loss, and its schedule of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

UNKNOWN_STEPS = 10**9  # total_step until the number of updates is known


@contextmanager
def full_ranks(config: Any) -> Iterator[None]:
    """Let the library read all rows of A, B and E, pruned ones included, inside this context."""
    if config.peft_type.value != "ADALORA":
        yield
        return
    pattern, config.rank_pattern = config.rank_pattern, None
    try:
        yield
    finally:
        config.rank_pattern = pattern


def orthogonality_penalty(model: nn.Module) -> Tensor:
    """Return the mean of ||A A^T - I|| and ||B^T B - I|| (Frobenius) over all A and B of `model`.

    As the library's AdaLoraModel computes it inside its forward.
    """
    distances = [
        torch.linalg.matrix_norm(square - torch.eye(len(square)).to(square))
        for name, p in model.named_parameters()
        if (square := _square(name, p)) is not None
    ]
    return torch.stack(distances).mean()


def _square(name: str, parameter: Tensor) -> Tensor | None:
    if ".lora_A." in name:
        return parameter @ parameter.T
    return parameter.T @ parameter if ".lora_B." in name else None


@dataclass
class AddPenalty:
    """A forward hook that adds the weighted penalty to the loss that the model computes."""

    weight: float

    def add(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Add to `output.loss`, where there is one."""
        if getattr(output, "loss", None) is not None:
            output.loss = output.loss + self.weight * orthogonality_penalty(module)
        return output
