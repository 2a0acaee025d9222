"""The eager step: forward and backward of a micro-batch, one kernel after another."""

from __future__ import annotations

from collections.abc import Sequence

from accelerate import Accelerator
from torch import Tensor, nn

from unipeft_run.training.compute.batches import Inputs, pin
from unipeft_run.training.compute.graphs import Run


class EagerStep:
    """step(batch, weight) -> loss, which adds the gradients of `parameters`."""

    def __init__(
        self, run: Run, accelerator: Accelerator, parameters: Sequence[nn.Parameter]
    ) -> None:
        self.run, self.accelerator, self.parameters = run, accelerator, parameters

    def __call__(self, batch: Inputs, weight: float) -> Tensor:
        device = self.accelerator.device
        pinned = pin(batch, device)
        on_device = {name: t.to(device, non_blocking=True) for name, t in pinned.items()}
        return self.run(on_device, weight)

    def clip(self, max_norm: float) -> Tensor:
        """Clip the gradients; return their norm before."""
        norm = self.accelerator.clip_grad_norm_(self.parameters, max_norm)
        assert isinstance(norm, Tensor)
        return norm

    def clear(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters:
            parameter.grad = None
