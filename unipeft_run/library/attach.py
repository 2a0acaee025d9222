"""Attach a method to a model, by its name or by its axes, as a named delta."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from unipeft_run.backbones.families import head_patterns
from unipeft_run.config.identity import folder_name
from unipeft_run.config.messages import shorten, unknown_choice
from unipeft_run.config.schema import TunerConfig
from unipeft_run.deltas import attach as core
from unipeft_run.deltas.build import backbone_size
from unipeft_run.deltas.slots import Slot, build_slot, matching_parameters, stored_form
from unipeft_run.errors import UserError
from unipeft_run.library.backbone import check_model, refuse_compiled
from unipeft_run.library.choices import CUSTOM, configure
from unipeft_run.library.schedule import start_training_parts
from unipeft_run.library.store import ATTRIBUTE, NamedDelta, Store, copy_values, find_store
from unipeft_run.library.summary import Attached, tabulate_sites
from unipeft_run.library.switch import activate, deactivate, forget, restore_plain
from unipeft_run.tuners.adapter import Adapter

HEADS = ("trained", "frozen")


def attach(
    model: nn.Module,
    method: str | None = None,
    *,
    name: str | None = None,
    unfreeze: str | Sequence[str] = (),
    head: Literal["trained", "frozen"] = "trained",
    **choices: Any,
) -> Attached:
    """Attach a method to `model` as a named delta, activate it, and freeze the rest of the model.

    Args:
        model: a transformers model of a supported family (docs/backbones.md).
        method: a file in conf/method, such as `mam`; without it, the axes describe the delta.
        name: the delta's name; defaults to the method's.
        unfreeze: a pattern, or several, of backbone parameters that train as well, such as
            `*LayerNorm*`.
        head: whether a classification or question-answering head trains and is stored.
        choices: sizes for every slot (`bottleneck=8`, `scale=4`, `mlp_width=None`); the axes and
            sizes of one slot (`ffn=dict(composition="add", bottleneck=64)`), or None to leave it
            out (`attn=None`); dotted keys (`**{"attn.bottleneck": 30}`). Sizes that are not given
            are the paper's: for a backbone that generates text, those for XSum (mBART: WMT16
            en-ro); for others, those for SST-2.

    Returns the delta's sites and parameter counts, to print. Deltas that were active before are
    kept, inactive. Raises UserError; the model is then unchanged.
    """
    family = check_model(model)
    if head not in HEADS:
        raise UserError(unknown_choice("head", head, HEADS))
    config = configure(family.name, method, choices)
    slots, tuner, method = config.slots(), config.peft, method or CUSTOM
    chosen = [unfreeze] if isinstance(unfreeze, str) else unfreeze
    patterns = [*config.unfreeze, *chosen, *(head_patterns(model) if head == "trained" else ())]
    if not slots and not patterns and tuner is None:
        raise UserError(f"method {method} attaches nothing to a {type(model).__name__}")
    stored = {key: stored_form(slot) for key, slot in slots.items()}
    recipe: dict[str, Any] = {
        "method": method,
        "unfreeze": list(dict.fromkeys(patterns)),
        "slots": {key: slot.model_dump(mode="json", by_alias=True) for key, slot in stored.items()},
    }
    if tuner is not None:
        recipe["peft"] = tuner.model_dump(mode="json")
    built = {key: build_slot(key, slot) for key, slot in slots.items()}
    return add_delta(model, name or folder_name(method), recipe, built, tuner)


def add_delta(
    model: nn.Module,
    name: str,
    recipe: Mapping[str, Any],
    slots: Mapping[str, Slot],
    tuner: TunerConfig | None = None,
    check: Callable[[], None] | None = None,
) -> Attached:
    """Attach `slots`, or a method of the PEFT library, as the only active delta of the model.

    `check` is called with the plain backbone, before the delta is attached. Raises UserError,
    changing nothing.
    """
    refuse_compiled(model, "delta")
    store = find_store(model)
    _check_name(name, store)
    if store is None:
        if core.has_deltas(model):
            raise UserError(
                "this model has deltas that were not attached with unipeft.attach; "
                "detach them first"
            )
        store = Store(frozenset(n for n, p in model.named_parameters() if p.requires_grad))
    previous, gradients = store.active, [(p, p.grad) for p in model.parameters()]
    with torch.inference_mode(False):  # what is built now may be trained later
        deactivate(model, store)
        try:
            if check is not None:
                check()
            return _add_to_plain(model, store, name, recipe, slots, tuner)
        except BaseException:
            restore_plain(model, store, ())
            if store.named:
                activate(model, previous)
            else:
                forget(model, store)
                for parameter, gradient in gradients:
                    parameter.grad = gradient
            raise


def _add_to_plain(
    model: nn.Module,
    store: Store,
    name: str,
    recipe: Mapping[str, Any],
    slots: Mapping[str, Slot],
    tuner: TunerConfig | None,
) -> Attached:
    """Attach and activate a delta on the plain backbone, and put it into the store."""
    names = [parameter for parameter, _ in model.named_parameters()]
    unfrozen = tuple(sorted(matching_parameters(names, recipe["unfreeze"])))
    deltas = core.attach(model, slots, recipe["unfreeze"])
    plain = copy_values(model, [key for key in unfrozen if key not in store.plain])
    summary = _summarise(model, name, recipe, deltas, unfrozen)
    if tuner is not None:
        summary = _with_library(summary, core.attach_library(model, tuner))
    store.plain |= plain
    recipe = {**recipe, "name": name}
    delta = NamedDelta(recipe, summary, deltas, unfrozen, tuner=tuner)
    start_training_parts(model, delta)
    store.named[name] = delta
    store.active = (name,)
    setattr(model, ATTRIBUTE, store)
    return summary


def _check_name(name: str, store: Store | None) -> None:
    if not re.fullmatch(r"\w[\w-]*", name):
        raise UserError(f"name={shorten(name)}: must be letters, digits, _ and -")
    if store and name in store.named:
        raise UserError(f"this model already has a delta {name}; give another name=, or detach it")


def _summarise(
    model: nn.Module,
    name: str,
    recipe: Mapping[str, Any],
    deltas: Sequence[tuple[str, Any]],
    unfrozen: Sequence[str],
) -> Attached:
    sizes = {key: model.get_parameter(key).numel() for key in unfrozen}
    rows = tabulate_sites(deltas, sizes, recipe["unfreeze"])
    kind = type(model).__name__
    return Attached(name, recipe["method"], kind, backbone_size(model), tuple(rows))


def _with_library(summary: Attached, adapter: Adapter) -> Attached:
    """Add the rows of the PEFT library's modules to a summary."""
    rows = [
        {"slot": slot, "representation": name, "path": adapter.tuner.type, **counts}
        for (slot, name), counts in adapter.rows().items()
    ]
    return replace(summary, sites=(*rows, *summary.sites))
