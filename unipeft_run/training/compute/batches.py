"""Batches on their way to the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Inputs = Mapping[str, Tensor]


def pin(batch: Inputs, device: torch.device) -> Inputs:
    """Return `batch` in memory that a GPU reads without making the host wait."""
    if device.type != "cuda":
        return batch
    return {name: tensor.pin_memory() for name, tensor in batch.items()}
