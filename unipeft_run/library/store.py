"""The named deltas of a model.

They are kept in its attribute `_unipeft`, which is copied and pickled with it.
Only active deltas are modules of the model, under the same names as in a run. Inactive ones are
held here, so the model's parameters, hooks and state dict are those of the active ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from unipeft_run.backbones.wrapped import refuse_wrapper
from unipeft_run.config.messages import unknown_choice
from unipeft_run.config.schema import TunerConfig
from unipeft_run.deltas.attach import has_deltas
from unipeft_run.deltas.delta import Delta
from unipeft_run.errors import UserError
from unipeft_run.library.summary import Attached
from unipeft_run.tuners.adalora import RankSchedule
from unipeft_run.tuners.adapter import find_adapter

ATTRIBUTE = "_unipeft"
Tensors = dict[str, torch.Tensor]


@dataclass
class NamedDelta:
    """One named delta: its modules, and its own values of unfrozen backbone parameters.

    Args:
        recipe: the content of delta.json, but for the description of the backbone.
        summary: what `attach` returned.
        deltas: the path and module of each site.
        unfrozen: names of the backbone parameters that it trains.
        values: its values of these parameters while it is inactive, on the CPU.
        gradients: their gradients while it is inactive, so that accumulation continues.
        dtype: the backbone's type when it was last active.
        tuner: the method of the PEFT library, if it is one.
        tensors: what the library stores of it while it is inactive, on the CPU.
        parameters: its Parameters while it is inactive, by their names in the model.
        schedule: the rank schedule of AdaLoRA, if the user's loop has one.
    """

    recipe: Mapping[str, Any]
    summary: Attached
    deltas: list[tuple[str, Delta]]
    unfrozen: tuple[str, ...]
    values: Tensors = field(default_factory=dict)
    gradients: Tensors = field(default_factory=dict)
    dtype: torch.dtype | None = None
    tuner: TunerConfig | None = None
    tensors: Tensors = field(default_factory=dict)
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    schedule: RankSchedule | None = None


@dataclass
class Store:
    """All named deltas of one model, and the state to restore without them.

    Args:
        named: the deltas by name.
        active: the names of those that act, in order.
        plain: the plain backbone's values of every parameter that some delta unfreezes.
        trainable: names of the parameters that required a gradient before the first delta.
    """

    trainable: frozenset[str]
    named: dict[str, NamedDelta] = field(default_factory=dict)
    active: tuple[str, ...] = ()
    plain: Tensors = field(default_factory=dict)

    def get(self, name: str) -> NamedDelta:
        """Return the delta called `name`. Raises UserError."""
        if name not in self.named:
            raise UserError(unknown_choice("name", name, self.named))
        return self.named[name]


def find_store(model: Any) -> Store | None:
    """Return the store of a model; None if it has no named delta.

    Raises UserError for a wrapper of a model.
    """
    refuse_wrapper(model)
    store = vars(model).get(ATTRIBUTE)
    assert store is None or isinstance(store, Store)
    return store


def require_store(model: Any) -> Store:
    """Return the store of a model. Raises UserError if it has no named delta."""
    store = find_store(model)
    if store is None:
        kind = type(model).__name__
        if has_deltas(model):
            raise UserError(f"this {kind} has deltas that were not attached with unipeft.attach")
        raise UserError(f"this {kind} has no deltas; see unipeft.attach")
    return store


def copy_values(model: nn.Module, names: Iterable[str]) -> Tensors:
    """Copy the backbone's parameters called `names` to the CPU."""
    find = _finder(model)
    return {name: find(name).detach().cpu().clone() for name in names}


def write_values(model: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Copy `values` into the backbone's parameters of the same names."""
    find = _finder(model)
    with torch.no_grad():
        for name, value in values.items():
            find(name).copy_(value)


def take_gradients(model: nn.Module, names: Iterable[str]) -> Tensors:
    """Return the gradients of the backbone's parameters called `names`, and clear them."""
    find, taken = _finder(model), {}
    for name in names:
        parameter = find(name)
        if parameter.grad is not None:
            taken[name], parameter.grad = parameter.grad, None
    return taken


def put_gradients(model: nn.Module, gradients: Tensors) -> None:
    """Give the backbone's parameters the gradients that `take_gradients` returned."""
    find = _finder(model)
    for name, gradient in gradients.items():
        parameter = find(name)
        parameter.grad = gradient.to(parameter)


def _finder(model: nn.Module) -> Callable[[str], nn.Parameter]:
    """Return the lookup of the backbone's parameters by their names without any delta."""
    adapter = find_adapter(model)
    if adapter is None:
        return model.get_parameter
    return dict(adapter.unfrozen_parameters()).__getitem__  # the others are not asked for
