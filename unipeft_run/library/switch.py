"""Activate named deltas of a model: one, several, or none (the plain backbone)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from unipeft_run.deltas import attach as core
from unipeft_run.library.backbone import refuse_compiled
from unipeft_run.library.combine import check_combination, place_deltas
from unipeft_run.library.store import (
    ATTRIBUTE,
    NamedDelta,
    Store,
    copy_values,
    find_store,
    require_store,
    write_values,
)
from unipeft_run.tuners.adapter import find_adapter


def active(model: nn.Module) -> list[str]:
    """Return the names of the deltas that act on the model; [] if it is the plain backbone."""
    store = find_store(model)
    return list(store.active) if store else []


def activate(model: nn.Module, names: str | Sequence[str] | None) -> None:
    """Activate one named delta or several, and deactivate all others; None: the plain backbone.

    Several deltas add their changes. With None, the outputs equal the plain backbone's bit for bit.
    Switch before torch.compile. Raises UserError for an unknown name and for deltas that cannot
    act together.
    """
    store = require_store(model)
    refuse_compiled(model, "switch")
    chosen = (names,) if isinstance(names, str) else tuple(names or ())
    check_combination({name: store.get(name) for name in chosen}, chosen)
    if chosen == store.active:
        return
    deactivate(model, store)
    for name in chosen:
        _restore(model, store.named[name])
    place_deltas(model, {name: store.named[name].deltas for name in chosen})
    for name in chosen:
        _place_library(model, store.named[name])
    store.active = chosen


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Make the model the plain backbone inside this context."""
    names = require_store(model).active
    activate(model, None)
    try:
        yield
    finally:
        activate(model, names)


def detach(model: nn.Module, name: str | None = None) -> None:
    """Remove the delta called `name`, by default all deltas.

    Without its last delta the model is as before the first one, with the plain backbone's values
    and the same trainable parameters. Raises UserError for an unknown name.
    """
    store = find_store(model)
    if store is None and name is None:
        core.detach(model)
        return
    store = require_store(model)
    names = list(store.named) if name is None else [store.get(name).summary.name]
    rest = tuple(other for other in store.active if other not in names)
    if rest != store.active:
        activate(model, rest)
    for removed in names:
        del store.named[removed]
    kept = {parameter for delta in store.named.values() for parameter in delta.unfrozen}
    store.plain = {key: value for key, value in store.plain.items() if key in kept}
    if not store.named:
        forget(model, store)


def forget(model: nn.Module, store: Store) -> None:
    """Remove an empty store, and unfreeze the parameters that trained before the first delta."""
    vars(model).pop(ATTRIBUTE, None)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in store.trainable)


def deactivate(model: nn.Module, store: Store) -> None:
    """Restore the plain backbone and freeze all of its parameters."""
    if adapter := find_adapter(model):
        stored = {key: t.detach().cpu().clone() for key, t in adapter.tensors().items()}
        store.named[store.active[0]].tensors = stored  # it acts alone
    core.detach(model)
    for name in store.active:
        delta = store.named[name]
        delta.values, delta.dtype = copy_values(model, delta.unfrozen), model_type(model)
    for name in store.active:
        unfrozen = store.named[name].unfrozen
        write_values(model, {parameter: store.plain[parameter] for parameter in unfrozen})
    model.requires_grad_(False)
    store.active = ()


def model_type(model: Any) -> Any:
    """Return the type of the backbone's weights."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def _restore(model: nn.Module, delta: NamedDelta) -> None:
    """Move the delta to the model's device, and to the model's type if that has changed."""
    write_values(model, delta.values)
    for name in delta.unfrozen:
        model.get_parameter(name).requires_grad_(True)
    dtype, device = model_type(model), next(model.parameters()).device
    for _, module in delta.deltas:
        module.to(device=device, dtype=None if dtype == delta.dtype else dtype)
        module.train(model.training)


def _place_library(model: nn.Module, delta: NamedDelta) -> None:
    """Put the modules of the PEFT library back, with their values."""
    if delta.tuner is not None:
        with torch.random.fork_rng(devices=[]):  # the values that it draws are replaced
            core.attach_library(model, delta.tuner).load(delta.tensors)
