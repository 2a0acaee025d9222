"""The model on several processes: replicated (DDP) or sharded by layers (FSDP2).

Every batch is split among the processes, and their gradients are averaged, each weighted by its
number of targets. Up to rounding and dropout, the number of processes does not change the updates.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.distributed import DistError, all_reduce
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_layers import GradientCheckpointingLayer

from unipeft_run.errors import UserError
from unipeft_run.training.distributed import processes

Parallel = Literal["ddp", "fsdp"]
T = TypeVar("T")


def broadcast(value: T) -> T:
    """Return rank 0's `value` on every rank. The first call connects the processes.

    Raises `UserError` if they cannot reach each other.
    """
    try:
        # Without `cpu`, accelerate does not connect processes that have no GPU.
        PartialState(cpu=not torch.cuda.is_available())
    except DistError as problem:
        reason = str(problem).partition("\n")[0]
        raise UserError(f"MASTER_ADDR and MASTER_PORT lead to no process: {reason}") from None
    (value,) = broadcast_object_list([value], from_process=0)
    return value


def all_reduce_sum(values: Sequence[float], device: torch.device) -> list[float]:
    """Sum `values` elementwise over the processes."""
    if processes.world_size() == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    all_reduce(sums)
    return sums.tolist()


def wrap_model(model: nn.Module, how: Parallel, device: torch.device) -> nn.Module:
    """Return the module to call in place of `model`, so that gradients are averaged.

    "fsdp" shards `model` in place, by layers, and replaces its parameters. If the backbone is
    frozen, trained parameters are not sharded: they are small, and layers may share them.
    """
    if processes.world_size() == 1:
        return model
    if how == "fsdp":
        return _shard(model, device)
    ids = [device] if device.type == "cuda" else None
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    keeps_buffers: dict[str, Any] = {name: False}  # the second is the name before torch 2.13
    return DistributedDataParallel(model, device_ids=ids, **keeps_buffers)


def _shard(model: nn.Module, device: torch.device) -> nn.Module:
    mesh = init_device_mesh(device.type, (processes.world_size(),))
    trained = {p for p in model.parameters() if p.requires_grad}
    has_frozen = any(p not in trained for p in model.parameters())
    scalars = _find_scalars(model)
    options: Any = {"mesh": mesh, "ignored_params": scalars | (trained if has_frozen else set())}
    for module in list(model.modules()):
        if isinstance(module, GradientCheckpointingLayer):
            fully_shard(module, **options)
    fully_shard(model, **options)
    if hasattr(model, "generate"):  # it calls the encoder without the model
        register_fsdp_forward_method(model, "generate")
    return model


def _find_scalars(model: nn.Module) -> set[nn.Parameter]:
    """Return the parameters without dimensions. Raises UserError if all parameters train."""
    scalars = {name: p for name, p in model.named_parameters() if p.dim() == 0}
    if scalars and all(p.requires_grad for p in model.parameters()):
        name = next(iter(scalars))
        raise UserError(f"parallel=fsdp cannot train {name}, a single number; use parallel=ddp")
    return set(scalars.values())


def no_sync(replica: nn.Module) -> AbstractContextManager[Any]:
    """Return a context without DDP's all-reduce, for all but the last micro-batch."""
    is_ddp = isinstance(replica, DistributedDataParallel)
    return cast("DistributedDataParallel", replica).no_sync() if is_ddp else nullcontext()


def all_reduce_gradients(replica: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
    """Average the gradients of parameters that FSDP does not shard; DDP has done so itself."""
    if not is_sharded(replica) or isinstance(parameters[0], DTensor):
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    all_reduce(flat)
    flat /= processes.world_size()
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def is_sharded(model: nn.Module) -> bool:
    """Return whether FSDP shards `model`, so that all processes must call it together."""
    return isinstance(model, FSDPModule)


def unshard(model: nn.Module) -> None:
    """Gather every parameter on every rank, permanently."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()


def reshard(model: nn.Module) -> None:
    """Free the parameters gathered by a forward pass that no backward pass followed."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def gather_full(tensor: Tensor) -> Tensor:
    """Return the full tensor of a sharded one, else `tensor` itself. A collective call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_part(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a sharded tensor, else `tensor` itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Shard `tensor`, equal on all ranks, like `like`; return it as is if `like` is not sharded."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
