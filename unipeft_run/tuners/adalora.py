"""AdaLoRA (Zhang et al. 2023): its penalty on the loss, and its schedule of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unipeft_run.errors import UserError
from unipeft_run.runs.checkpoint import Checkpoint

if TYPE_CHECKING:
    from unipeft_run.training.losses import Batch, Loss

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
    """A forward hook that adds the weighted penalty to the loss that the model computes.

    `only_in_training`: leave a loss computed in eval mode unchanged.
    """

    weight: float
    only_in_training: bool = False

    def add(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Add to `output.loss`, where there is one."""
        skipped = self.only_in_training and not module.training
        if getattr(output, "loss", None) is not None and not skipped:
            output.loss = output.loss + self.weight * orthogonality_penalty(module)
        return output


@dataclass
class PenalisedLoss:
    """A training loss with the weighted penalty of `model` added."""

    loss: Loss
    model: nn.Module
    weight: float

    def __call__(self, replica: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor]:
        value, count = self.loss(replica, batch)
        return value + self.weight * orthogonality_penalty(self.model), count


class RankSchedule:
    """Prunes singular values between updates, as the library's `update_and_allocate` does.

    `tuner`: the library's AdaLoraModel. Raises UserError for a schedule that cannot prune, and when
    it is called while the method is not active.
    """

    STATE = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # the allocator's importance of each weight

    def __init__(self, tuner: Any, adapter: str, total_steps: int) -> None:
        self.tuner, self.adapter, self.config = tuner, adapter, tuner.peft_config[adapter]
        self._suspended: Checkpoint | None = None
        if self.config.total_step == UNKNOWN_STEPS:
            self.config.total_step = total_steps
        if self.config.target_r >= self.config.init_r:
            raise UserError(
                f"peft.config.target_r={self.config.target_r}: must be less than "
                f"peft.config.init_r={self.config.init_r}"
            )
        fixed = self.config.tinit + self.config.tfinal
        if fixed >= self.config.total_step:
            raise UserError(
                f"peft.config.tinit and peft.config.tfinal take {fixed} updates, which leaves none "
                f"of {self.config.total_step} for pruning"
            )
        self.last_pruning = self.config.total_step - self.config.tfinal

    def __call__(self, step: int, *, skipped: bool = False) -> None:
        """Act after update number `step`, from 1.

        The gradients of a `skipped` update are not finite, so they do not change the importances.
        """
        if self._suspended is not None:
            raise UserError(
                "AdaLoRA is not active, so its rank schedule cannot act: activate it first"
            )
        allocator, is_final = self.tuner.rankallocator, step >= self.last_pruning
        if not (allocator.ipt or self.config.rank_pattern) and (skipped or is_final):
            return  # all updates were skipped: there is nothing to prune by
        if skipped:
            allocator.update_ipt = lambda model: None  # instead of the method
        try:
            self.tuner.update_and_allocate(step)
        finally:
            vars(allocator).pop("update_ipt", None)

    def suspend(self) -> None:
        """Keep the state while the method's modules are not in the model."""
        self._suspended, self.tuner = self.gather(), None

    def resume(self, tuner: Any) -> None:
        """Continue with new modules of the same method, after `suspend`."""
        content, self._suspended = self._suspended, None
        total_step, self.tuner = self.config.total_step, tuner
        self.config = tuner.peft_config[self.adapter]
        self.config.total_step = total_step
        if content is not None:
            self.restore(content)

    def gather(self) -> Checkpoint:
        """Return the importance of each weight, and which singular values are kept."""
        allocator = self.tuner.rankallocator
        tensors = {
            f"{kind}/{name}": tensor
            for kind in self.STATE
            for name, tensor in getattr(allocator, kind).items()
        }
        return Checkpoint(tensors, {"rank_pattern": self.config.rank_pattern})

    def restore(self, content: Checkpoint) -> None:
        """Restore the state that `gather` returned."""
        device = next(self.tuner.parameters()).device
        for kind in self.STATE:
            getattr(self.tuner.rankallocator, kind).clear()
        for key, tensor in content.tensors.items():
            kind, _, name = key.partition("/")
            getattr(self.tuner.rankallocator, kind)[name] = tensor.to(device)
        self.config.rank_pattern = content.state["rank_pattern"]
