"""Activate named deltas of a model: one, several, or none (the plain backbone)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from unipeft_run.config.schema import TunerConfig
from unipeft_run.deltas import attach as core
from unipeft_run.deltas.origin import drop_origin, find_origin
from unipeft_run.errors import UserError
from unipeft_run.library.backbone import refuse_compiled
from unipeft_run.library.combine import check_combination, place_deltas
from unipeft_run.library.schedule import start_training_parts
from unipeft_run.library.store import (
    ATTRIBUTE,
    NamedDelta,
    Store,
    copy_values,
    find_store,
    put_gradients,
    require_store,
    take_gradients,
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
    be active together.
    """
    store = require_store(model)
    refuse_compiled(model, "switch")
    chosen = (names,) if isinstance(names, str) else tuple(names or ())
    check_combination({name: store.get(name) for name in chosen}, chosen)
    _check_sizes(model, store, chosen)
    if chosen == store.active:
        return
    with torch.inference_mode(False):  # what is built now may be trained later
        _exchange(model, store, chosen)


def _exchange(model: nn.Module, store: Store, chosen: Sequence[str]) -> None:
    previous = store.active
    deactivate(model, store)
    try:
        _place(model, store, chosen)
    except BaseException:
        restore_plain(model, store, chosen)
        _place(model, store, previous)
        raise


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
    and the same trainable parameters. The model of `load_run` is then the plain backbone, frozen:
    weights that the run trained are read again from the backbone's folder. Raises UserError for an
    unknown name, and if that folder is gone.
    """
    store = find_store(model)
    if store is None and name is None:
        _detach_unnamed(model)
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


def _detach_unnamed(model: nn.Module) -> None:
    """Remove the deltas of a run's model, and restore the backbone weights that the run trained."""
    origin = find_origin(model)
    values = origin.plain_values() if origin else {}
    core.detach(model)
    if origin:
        model.requires_grad_(False)
        write_values(model, values)
        drop_origin(model)


def forget(model: nn.Module, store: Store) -> None:
    """Remove an empty store, and unfreeze the parameters that trained before the first delta."""
    vars(model).pop(ATTRIBUTE, None)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in store.trainable)


def deactivate(model: nn.Module, store: Store) -> None:
    """Keep the values of the active deltas, restore the plain backbone and freeze it.

    Raises UserError if that is impossible, since a parameter has another size.
    """
    names = store.active
    _check_sizes(model, store, names)
    for name in names:
        delta = store.named[name]
        delta.values, delta.dtype = copy_values(model, delta.unfrozen), model_type(model)
        delta.gradients = take_gradients(model, delta.unfrozen)
    adapter = find_adapter(model)
    if adapter is None:
        restore_plain(model, store, names)
        return
    delta = store.named[names[0]]  # no other delta is active
    if delta.schedule is not None:
        delta.schedule.suspend()
    delta.tensors = {key: t.detach().cpu().clone() for key, t in adapter.tensors().items()}
    parameters = list(model.named_parameters(remove_duplicate=False))
    restore_plain(model, store, names)
    backbone = {id(parameter) for parameter in model.parameters()}
    delta.parameters = {name: p for name, p in parameters if id(p) not in backbone}


def _check_sizes(model: nn.Module, store: Store, names: Sequence[str]) -> None:
    """Raise UserError if a parameter that the deltas `names` train has another size than before."""
    adapter = find_adapter(model)
    found = adapter.backbone_parameters() if adapter else model.named_parameters()
    sizes = {parameter: list(value.shape) for parameter, value in found}
    for name in names:
        for parameter in store.named[name].unfrozen:
            before = list(store.plain[parameter].shape)
            if sizes.get(parameter, before) != before:
                raise UserError(
                    f"{parameter} is {sizes[parameter]}, but was {before} when delta {name}, which "
                    "trains it, was attached: give it that size again (resize_token_embeddings)"
                )


def restore_plain(model: nn.Module, store: Store, names: Sequence[str]) -> None:
    """Make the model the plain backbone, frozen, after the deltas `names` acted on it.

    Frozen parameters have no gradient, so that clipping by norm does not count it.
    """
    core.detach(model)
    for name in names:
        unfrozen = store.named[name].unfrozen
        write_values(model, {parameter: store.plain[parameter] for parameter in unfrozen})
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    store.active = ()


def model_type(model: Any) -> Any:
    """Return the type of the backbone's weights."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def _place(model: nn.Module, store: Store, names: Sequence[str]) -> None:
    """Make the deltas `names` act on the plain backbone."""
    deltas = {name: store.named[name] for name in names}
    for delta in deltas.values():
        _move(model, delta)
        for name in delta.unfrozen:
            model.get_parameter(name).requires_grad_(True)
    place_deltas(model, {name: delta.deltas for name, delta in deltas.items()})
    for delta in deltas.values():
        if delta.tuner is not None:
            _place_library(model, delta.tuner, delta)
        write_values(model, delta.values)
        put_gradients(model, delta.gradients)
        delta.gradients = {}
    store.active = tuple(names)


def _move(model: nn.Module, delta: NamedDelta) -> None:
    """Move each module to the device of its host, and to the model's type if that has changed."""
    dtype = _changed_type(model, delta)
    for _, module in delta.deltas:
        host = model.get_submodule(module.site.write.path)
        reference = next(host.parameters(), next(model.parameters()))
        module.to(device=reference.device, dtype=dtype)
        module.train(model.training)


def _changed_type(model: nn.Module, delta: NamedDelta) -> torch.dtype | None:
    """Return the model's type; None if it is still that of the delta's last activation."""
    dtype: torch.dtype = model_type(model)
    return None if dtype == delta.dtype else dtype


def _place_library(model: nn.Module, tuner: TunerConfig, delta: NamedDelta) -> None:
    """Build the modules of the PEFT library again, around the Parameters that they had before.

    An optimiser of these Parameters keeps working.
    """
    with torch.random.fork_rng(devices=[]):  # the values that it draws are replaced
        core.attach_library(model, tuner).load(delta.tensors)
    dtype = _changed_type(model, delta)
    for name, parameter in delta.parameters.items():
        path, _, own = name.rpartition(".")
        module = model.get_submodule(path)
        nn.ParameterList([parameter]).to(device=module.get_parameter(own).device, dtype=dtype)
        module._parameters[own] = parameter
    start_training_parts(model, delta)
