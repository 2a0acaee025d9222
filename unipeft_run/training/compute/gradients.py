"""Gradients as views of one buffer per type: fixed addresses, one kernel to clip or clear."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unipeft_run.data.batching import round_up


class FlatGradients:
    """The gradients of `parameters`, which start at zero."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters, self.buffers = parameters, []
        for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
            group = [parameter for parameter in parameters if parameter.dtype == dtype]
            # multiples of 16 bytes, which vectorised kernels need
            sizes = [int(round_up(p.numel(), 16 // p.element_size())) for p in group]
            buffer = torch.zeros(sum(sizes), dtype=dtype, device=group[0].device)
            for parameter, part in zip(group, torch.split(buffer, sizes), strict=True):
                parameter.grad = part[: parameter.numel()].view_as(parameter)
            self.buffers.append(buffer)

    def clear(self) -> None:
        """Set all gradients to zero."""
        for buffer in self.buffers:
            buffer.zero_()

    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradients to a norm of at most `max_norm`; return the norm before."""
        norms = torch.stack([torch.linalg.vector_norm(buffer) for buffer in self.buffers])
        norm = torch.linalg.vector_norm(norms)
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for buffer in self.buffers:
            buffer.mul_(factor)
        return norm
