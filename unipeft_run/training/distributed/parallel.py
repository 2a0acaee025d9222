"""One run over several processes: the model in each of them, whole (DDP) or in shards (FSDP2).

Every batch of the recipe is shared out among the processes and gradients are averaged, each with
the weight of its targets: beside rounding and the dropout drawn, their number changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.distributed import all_reduce
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_layers import GradientCheckpointingLayer

from unipeft_run.training.distributed import processes

Parallel = Literal["ddp", "fsdp"]
T = TypeVar("T")


def from_lead(value: T) -> T:
    """The `value` that the leading process gave, in all processes."""
    # accelerate takes a CPU for one of several processes only where it is told so, and first
    PartialState(cpu=not torch.cuda.is_available())
    (value,) = broadcast_object_list([value], from_process=0)
    return value


def totals(values: Sequence[float], device: torch.device) -> list[float]:
    """The sums of `values` over the processes."""
    if processes.count() == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    all_reduce(sums)
    return sums.tolist()


def share(targets: int, device: torch.device) -> float:
    """The weight of this process's mean loss in the mean over the processes, 1 on average."""
    return processes.count() * targets / totals([targets], device)[0]


def spread(model: nn.Module, how: Parallel, device: torch.device) -> nn.Module:
    """What to call instead of `model`, whose parameters that train get averaged gradients.

    "fsdp" shards `model` itself, by layers: its parameters are other objects from then on. What
    trains beside a frozen backbone stays whole: it is small, and layers may share it.
    """
    if processes.count() == 1:
        return model
    if how == "fsdp":
        return _sharded(model, device)
    ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids, forward_sync_buffers=False)


def _sharded(model: nn.Module, device: torch.device) -> nn.Module:
    mesh = init_device_mesh(device.type, (processes.count(),))
    trained = {p for p in model.parameters() if p.requires_grad}
    beside = any(p not in trained for p in model.parameters())
    kept: Any = {"mesh": mesh, "ignored_params": trained if beside else set()}
    for module in list(model.modules()):
        if isinstance(module, GradientCheckpointingLayer):
            fully_shard(module, **kept)
    fully_shard(model, **kept)
    if hasattr(model, "generate"):  # which calls the encoder before the model
        register_fsdp_forward_method(model, "generate")
    return model


def without_averaging(replica: nn.Module) -> AbstractContextManager[Any]:
    """Inside, gradients stay in their process: for all but the last of accumulated batches."""
    ddp = isinstance(replica, DistributedDataParallel)
    return cast("DistributedDataParallel", replica).no_sync() if ddp else nullcontext()


def average(replica: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
    """Average the gradients that neither DDP nor FSDP does: of what is whole beside shards."""
    if not is_sharded(replica) or isinstance(parameters[0], DTensor):
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    all_reduce(joined)
    joined /= processes.count()
    parts = torch.split(joined, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def is_sharded(model: nn.Module) -> bool:
    """Whether `model` works only where all processes call it together."""
    return isinstance(model, FSDPModule)


def unshard(model: nn.Module) -> None:
    """Make every parameter whole in every process, for good."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()


def whole(tensor: Tensor) -> Tensor:
    """`tensor` itself, or all of a sharded one; all processes call it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def placed(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor`, the same in all processes, sharded as `like` is where that is."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
