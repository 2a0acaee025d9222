"""What a checkpoint of a training holds: gathered from the live objects, and put back into them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from unipeft_run.runs.checkpoint import Checkpoint, extract_part, merge_parts
from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.parallel import placed, whole
from unipeft_run.training.progress import Clock, Progress


@dataclass
class TrainingState:
    """Everything that a resumed training needs to go on as if it had never stopped."""

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: GradScaler | None
    progress: Progress
    clock: Clock = field(default_factory=Clock)

    def gather(self) -> Checkpoint:
        """The state now; of the model only what trains. All processes call it together."""
        scaler = None if self.scaler is None else self.scaler.state_dict()
        schedule = self.schedule.state_dict()
        state = {
            "progress": asdict(self.progress),
            "schedule": schedule,
            "scaler": scaler,
            "wall_seconds": self.clock.seconds(),
        }
        parts = {
            "parameters": Checkpoint(parameter_values(self.model), {}),
            "optimizer": optimizer_state(self.optimizer, self.model),
            "training": Checkpoint({}, state),
        }
        random = gather_object([rng_state()])  # each process draws its own dropout
        return merge_parts(parts | {f"random{rank}": state for rank, state in enumerate(random)})

    def restore(self, content: Checkpoint) -> None:
        """Undo `gather`."""
        state = extract_part(content, "training").state
        load_parameters(self.model, extract_part(content, "parameters").tensors)
        load_optimizer_state(self.optimizer, self.model, extract_part(content, "optimizer"))
        self.schedule.load_state_dict(dict(state["schedule"]))
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        mine = f"random{processes.rank()}"
        if mine in content.state:  # else there are more processes than before
            load_rng_state(extract_part(content, mine))
        self.progress = Progress.of(state["progress"])
        self.clock.earlier = state.get("wall_seconds", 0.0)  # older checkpoints are without


def trained_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that train, by name; tied ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def parameter_values(model: nn.Module) -> dict[str, Tensor]:
    """The values of the parameters that train, by name; all processes call it together."""
    return {name: whole(p) for name, p in trained_parameters(model).items()}


@torch.no_grad()
def load_parameters(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into the parameters that train in `model`: the same names, or ValueError."""
    parameters = trained_parameters(model)
    if parameters.keys() != tensors.keys():
        odd = sorted(parameters.keys() ^ tensors.keys())[0]
        raise ValueError(f"the checkpoint belongs to another model: {odd!r} is in one of them only")
    for name, parameter in parameters.items():
        parameter.copy_(placed(tensors[name], parameter))


def optimizer_state(optimizer: Optimizer, model: nn.Module) -> Checkpoint:
    """The optimiser's state with parameter names for its numbers, tensors apart from the rest."""
    names = _names_in_order(optimizer, model)
    content = optimizer.state_dict()
    entries = {
        f"{names[index]}/{key}": value
        for index, entry in content["state"].items()
        for key, value in entry.items()
    }
    tensors = {key: whole(value) for key, value in entries.items() if isinstance(value, Tensor)}
    numbers = {key: value for key, value in entries.items() if key not in tensors}
    return Checkpoint(
        tensors, {"names": names, "groups": content["param_groups"], "numbers": numbers}
    )


def load_optimizer_state(optimizer: Optimizer, model: nn.Module, content: Checkpoint) -> None:
    """Undo `optimizer_state`."""
    names = _names_in_order(optimizer, model)
    if names != content.state["names"]:
        raise ValueError("the checkpoint belongs to an optimiser over other parameters")
    indices = {name: index for index, name in enumerate(names)}
    parameters = dict(model.named_parameters())
    tensors = {
        key: placed(value, parameters[key.rpartition("/")[0]])
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
    """The random states of Python, NumPy, torch and its GPUs."""
    numpy = np.random.get_state(legacy=False)
    keys = numpy["state"].pop("key")
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(keys.astype(np.int64))}
    tensors |= {f"cuda{index}": state for index, state in enumerate(cuda)}
    return Checkpoint(tensors, {"python": random.getstate(), "numpy": numpy})


def load_rng_state(content: Checkpoint) -> None:
    """Undo `rng_state`."""
    version, internal, gauss = content.state["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy, keys = content.state["numpy"], content.tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": keys}})
    torch.set_rng_state(content.tensors["torch"])
    for index in range(torch.cuda.device_count()):
        if f"cuda{index}" in content.tensors:
            torch.cuda.set_rng_state(content.tensors[f"cuda{index}"], index)
