"""Optimisers and learning-rate schedules, including those of the paper's code."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers.optimization import get_scheduler

from unipeft_run.config.schema import OptimizerName, ScheduleName


class OfficialAdamW(AdamW):
    """AdamW as in transformers in 2021, which the paper's code trained with.

        p <- p - lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)
        p <- p - lr wd p

    Unlike in `torch.optim.AdamW`, eps is added to sqrt(v) without bias correction, and the decay
    acts on the updated value. The first line is torch's update with eps / sqrt(1 - b2^t) as its
    eps, so torch's fast kernels apply.
    """

    def __init__(
        self, params: Iterable[dict[str, Any]], *, weight_decay: float = 0.0, **adam: Any
    ) -> None:
        """Take parameter groups; `weight_decay` is the default for groups without their own."""
        super().__init__(params, weight_decay=weight_decay, **adam)
        for group in self.param_groups:
            group.update(updates=0, plain_eps=group["eps"], decay=group["weight_decay"])
            group["weight_decay"] = 0.0

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; t is counted per group."""
        for group in self.param_groups:
            group["updates"] += 1
            correction = 1 - group["betas"][1] ** group["updates"]
            group["eps"] = group["plain_eps"] / math.sqrt(correction)
        super().step()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters and group["decay"] > 0:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["decay"])


ADAMS: dict[OptimizerName, type[AdamW]] = {"adamw": AdamW, "adamw_official": OfficialAdamW}
SCHEDULES: dict[ScheduleName, str] = {
    "polynomial": "polynomial",
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant_with_warmup",
}  # our name: the name in transformers


def build_optimizer_and_schedule(
    model: nn.Module,
    total_steps: int,
    *,
    name: OptimizerName,
    lr: float,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float | None = None,
    weight_decay: float = 0.0,
    schedule: ScheduleName = "polynomial",
    lr_end: float = 1e-7,
    warmup_steps: int = 0,
    warmup_ratio: float = 0.0,
    fused: bool = True,
) -> tuple[Optimizer, LRScheduler]:
    """Build the optimiser of the trained parameters and its schedule over `total_steps` updates."""
    optimizer = build_optimizer(
        model,
        name=name,
        lr=lr,
        betas=betas,
        eps=eps,
        momentum=momentum,
        weight_decay=weight_decay,
        fused=fused,
    )
    warmup = warmup_steps or math.ceil(warmup_ratio * total_steps)
    if warmup == total_steps:
        warmup -= 1  # the schedules divide by the number of updates after the warm-up
    return optimizer, build_schedule(optimizer, total_steps, schedule, warmup, lr_end)


def build_optimizer(
    model: nn.Module,
    *,
    name: OptimizerName,
    lr: float,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float | None = None,
    weight_decay: float = 0.0,
    fused: bool = True,
) -> Optimizer:
    """Build the optimiser `name` over the parameters of `model` that require a gradient.

    Weight decay spares biases and normalisation layers (see `parameter_groups`). `fused`: use one
    kernel for all parameters. With a loss scaler it must be false, because accelerate would not
    notice when the scaler skips an update.
    """
    groups = parameter_groups(model, weight_decay)
    if name == "sgd":
        return SGD(groups, lr=lr, momentum=momentum or 0.0, fused=fused or None)
    beta1, beta2 = betas
    return ADAMS[name](groups, lr=lr, betas=(beta1, beta2), eps=eps, fused=fused or None)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trained parameters into two groups, with and without `weight_decay`.

    Names with "bias" and the parameters of normalisation layers do not decay. As in the paper's
    code, prefix embeddings, LoRA matrices and learned scales do.
    """
    norms = {
        id(parameter)
        for module in model.modules()
        if _is_norm(module)
        for parameter in module.parameters(recurse=False)
    }
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    plain = [p for n, p in trained if "bias" in n or id(p) in norms]
    decayed = [p for n, p in trained if not ("bias" in n or id(p) in norms)]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def _is_norm(module: nn.Module) -> bool:
    """Return whether `module` normalises: T5LayerNorm and LlamaRMSNorm are plain modules."""
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("Norm")


def build_schedule(
    optimizer: Optimizer, total_steps: int, name: ScheduleName, warmup_steps: int, lr_end: float
) -> LRScheduler:
    """Build a linear warm-up over `warmup_steps`, then the schedule `name` until `total_steps`.

    polynomial decays linearly to `lr_end`; linear and cosine decay to 0.
    """
    extra = {"lr_end": lr_end} if name == "polynomial" else None
    schedule: LRScheduler = get_scheduler(
        SCHEDULES[name], optimizer, warmup_steps, total_steps, scheduler_specific_kwargs=extra
    )
    return schedule
