"""The content of a training checkpoint: gathered from live objects and restored into them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from unipeft_run.errors import UserError
from unipeft_run.runs.checkpoint import Checkpoint, extract_part, merge_parts
from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.parallel import gather_full, local_part, shard_like
from unipeft_run.training.progress import Clock, Progress


class UpdateHook(Protocol):
    """A method that acts between updates: AdaLoRA's schedule of ranks."""

    def __call__(self, step: int, *, skipped: bool = False) -> None:
        """Act after update number `step`, from 1, before the gradients are cleared.

        `skipped`: whether the optimiser changed nothing, because a gradient is not finite.
        """

    def gather(self) -> Checkpoint:
        """Return its state."""

    def restore(self, content: Checkpoint) -> None:
        """Restore the state that `gather` returned."""


@dataclass
class TrainingState:
    """Everything that training needs to resume with identical results, bit for bit."""

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: GradScaler | None
    progress: Progress
    clock: Clock = field(default_factory=Clock)
    compute: dict[str, Any] | None = None  # the plan of the steps; None: not chosen yet
    hook: UpdateHook | None = None

    def gather(self) -> Checkpoint:
        """Return the current state, with trained parameters only. A collective call."""
        scaler = None if self.scaler is None else self.scaler.state_dict()
        schedule = self.schedule.state_dict()
        state = {
            "progress": asdict(self.progress),
            "schedule": schedule,
            "scaler": scaler,
            "wall_seconds": self.clock.seconds(),
            "compute": self.compute,
        }
        parts = {
            "parameters": Checkpoint(parameter_values(self.model), {}),
            "optimizer": optimizer_state(self.optimizer, self.model),
            "training": Checkpoint({}, state),
        }
        if self.hook is not None:
            parts["hook"] = self.hook.gather()
        random = gather_object([rng_state()])  # each rank draws its own dropout
        return merge_parts(parts | {f"random{rank}": state for rank, state in enumerate(random)})

    def restore(self, content: Checkpoint) -> None:
        """Restore the state that `gather` returned."""
        state = extract_part(content, "training").state
        load_parameters(self.model, extract_part(content, "parameters").tensors)
        load_optimizer_state(self.optimizer, self.model, extract_part(content, "optimizer"))
        self.schedule.load_state_dict(dict(state["schedule"]))
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        if self.hook is not None:
            self.hook.restore(extract_part(content, "hook"))
        mine = f"random{processes.rank()}"
        if mine in content.state:  # otherwise there are more processes than before
            load_rng_state(extract_part(content, mine))
        self.progress = Progress.from_dict(state["progress"])
        # both are missing in older checkpoints
        self.clock.earlier = state.get("wall_seconds", 0.0)
        self.compute = state.get("compute", {})

    def local_tensors(self) -> dict[str, Tensor]:
        """Return this rank's part of the trained parameters and of the optimiser's state."""
        parameters = {name: local_part(p) for name, p in trained_parameters(self.model).items()}
        entries = _named_entries(self.optimizer, self.model)
        moments = {key: local_part(v) for key, v in entries.items() if isinstance(v, Tensor)}
        return parameters | moments


def trained_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained parameters by name; tied ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def parameter_values(model: nn.Module) -> dict[str, Tensor]:
    """Return the values of the trained parameters by name. A collective call."""
    return {name: gather_full(p) for name, p in trained_parameters(model).items()}


@torch.no_grad()
def load_parameters(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into the trained parameters of `model`; ValueError if names differ."""
    parameters = trained_parameters(model)
    if parameters.keys() != tensors.keys():
        odd = sorted(parameters.keys() ^ tensors.keys())[0]
        raise ValueError(f"the checkpoint is of another model: only one of them has {odd!r}")
    for name, parameter in parameters.items():
        parameter.copy_(shard_like(tensors[name], parameter))


def optimizer_state(optimizer: Optimizer, model: nn.Module) -> Checkpoint:
    """Return the optimiser's state by parameter name, with tensors separate from numbers."""
    names = _names_in_order(optimizer, model)
    entries, groups = _named_entries(optimizer, model), optimizer.state_dict()["param_groups"]
    tensors = {key: gather_full(v) for key, v in entries.items() if isinstance(v, Tensor)}
    numbers = {key: value for key, value in entries.items() if key not in tensors}
    return Checkpoint(tensors, {"names": names, "groups": groups, "numbers": numbers})


def _named_entries(optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """Return the entries of the optimiser's state, keyed `parameter/entry`."""
    names = _names_in_order(optimizer, model)
    return {
        f"{names[index]}/{key}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }


def load_optimizer_state(optimizer: Optimizer, model: nn.Module, content: Checkpoint) -> None:
    """Load a state that `optimizer_state` returned. Raises `UserError` if weight decay differs."""
    names, stored = _names_in_order(optimizer, model), content.state["names"]
    if sorted(names) != sorted(stored):
        raise ValueError("the checkpoint is of an optimiser over other parameters")
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    if names != stored or sizes != [len(group["params"]) for group in content.state["groups"]]:
        raise UserError(
            "the checkpoint is of an older version, which applied weight decay to other "
            "parameters; start afresh (force=true)"
        )
    indices = {name: index for index, name in enumerate(names)}
    parameters = dict(model.named_parameters())
    tensors = {
        key: shard_like(value, parameters[key.rpartition("/")[0]])
        for key, value in content.tensors.items()
    }
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **content.state["numbers"]}.items():
        name, entry = key.rsplit("/", 1)
        state.setdefault(indices[name], {})[entry] = value
    optimizer.load_state_dict({"state": state, "param_groups": content.state["groups"]})


def _names_in_order(optimizer: Optimizer, model: nn.Module) -> list[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def rng_state() -> Checkpoint:
    """Return the random states of Python, NumPy, torch and its GPUs."""
    numpy = np.random.get_state(legacy=False)
    keys = numpy["state"].pop("key")
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(keys.astype(np.int64))}
    tensors |= {f"cuda{index}": state for index, state in enumerate(cuda)}
    return Checkpoint(tensors, {"python": random.getstate(), "numpy": numpy})


def load_rng_state(content: Checkpoint) -> None:
    """Restore the random states that `rng_state` returned."""
    version, internal, gauss = content.state["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy, keys = content.state["numpy"], content.tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": keys}})
    torch.set_rng_state(content.tensors["torch"])
    for index in range(torch.cuda.device_count()):
        if f"cuda{index}" in content.tensors:
            torch.cuda.set_rng_state(content.tensors[f"cuda{index}"], index)


def isolated_rng(device: torch.device) -> AbstractContextManager[None]:
    """Return a context that restores torch's random states (CPU and `device`) at its end."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
