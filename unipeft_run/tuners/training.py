"""What a method of the PEFT library does in training, besides its modules: AdaLoRA's parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from unipeft_run.tuners.adalora import PenalisedLoss, RankSchedule
from unipeft_run.tuners.adapter import find_adapter
from unipeft_run.tuners.library import ADAPTER

if TYPE_CHECKING:
    from unipeft_run.training.losses import Loss
    from unipeft_run.training.state import UpdateHook


def penalty_weight(model: nn.Module) -> float:
    """Return the weight of the method's penalty on the training loss; 0 for none."""
    adapter = find_adapter(model)
    if adapter is None or adapter.tuner.type != "ADALORA":
        return 0.0
    return float(adapter.config.orth_reg_weight)


def penalised_loss(model: nn.Module, loss: Loss) -> Loss | PenalisedLoss:
    """Return the training loss of `model`: `loss`, with the method's penalty if it has one."""
    weight = penalty_weight(model)
    return PenalisedLoss(loss, model, weight) if weight else loss


def update_hook(model: nn.Module, total_steps: int) -> UpdateHook | None:
    """Return what the method does between updates; None for nothing."""
    adapter = find_adapter(model)
    if adapter is None or adapter.tuner.type != "ADALORA":
        return None
    return RankSchedule(adapter.wrapper.base_model, ADAPTER, total_steps)
