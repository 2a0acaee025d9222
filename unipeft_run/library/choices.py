"""Turn a method's name, axes and sizes into a validated configuration, through conf/."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from omegaconf import DictConfig

from unipeft_run.config import RunConfig, compose, resolve
from unipeft_run.config.inert import refuse_inert
from unipeft_run.config.messages import options, shorten, unknown_choice, unknown_key
from unipeft_run.config.schema import AXES, SLOTS, SlotConfig
from unipeft_run.errors import UserError

# family -> the task of the paper whose sizes are the defaults
TASKS = {"bart": "xsum", "mbart": "wmt16_en_ro", "roberta": "sst2"}
SIZES = tuple(name for name in SlotConfig.model_fields if name not in AXES)
CUSTOM = "custom"  # the name of a delta that is described by its axes alone


def configure(family: str, method: str | None, choices: Mapping[str, Any]) -> RunConfig:
    """Return the configuration of `method`, changed by `choices`, for a family of backbones.

    `choices` holds a slot (`attn`, `ffn`, `input`) with a mapping of its axes and sizes or None, a
    size for every slot (`bottleneck`, `scale`, `mlp_width`), or a dotted key (`attn.bottleneck`).
    Raises UserError.
    """
    if method is not None and method not in (methods := options("method")):
        raise UserError(unknown_choice("method", method, methods))
    overrides = [f"task={TASKS[family]}", f"method={method or 'none'}"]
    for key, value in choices.items():
        if key not in SIZES:
            overrides += _overrides(key, value)
    for key in SIZES:
        if choices.get(key) is not None:
            overrides += _for_every_slot(key, choices[key], tuple(overrides))
    config = _resolve(tuple(overrides))
    if method is None and not config.slots():
        raise UserError(
            f"nothing to attach: give a method, one of {', '.join(options('method'))}, "
            'or the axes of a slot, as in ffn=dict(form="bottleneck", insertion="parallel", '
            'representation="ffn", composition="add", bottleneck=64)'
        )
    return config


def _overrides(key: str, value: Any) -> Iterator[str]:
    """Yield the overrides of one choice."""
    slot, _, name = key.partition(".")
    if slot not in SLOTS or (key != slot and not name):
        sizes = [f"{slot}.{size}" for slot in SLOTS for size in SIZES]
        raise UserError(unknown_key(key, [*SLOTS, *SIZES, "name", "unfreeze", "head", *sizes]))
    if name:
        yield f"{key}={_to_hydra(value)}"
    elif value is None:
        yield f"{slot}=null"
    elif isinstance(value, Mapping):
        for part, chosen in value.items():
            is_group = part in AXES and isinstance(chosen, str)
            yield f"{part}@{slot}={chosen}" if is_group else f"{slot}.{part}={_to_hydra(chosen)}"
    else:
        raise UserError(
            f"{slot}={shorten(value)}: must be a mapping of axes and sizes, or None for no change"
        )


def _for_every_slot(key: str, value: Any, overrides: tuple[str, ...]) -> list[str]:
    """Return the overrides that set a size in every slot that has it."""
    composed = _compose(overrides)
    slots = [slot for slot in SLOTS if composed[slot] and key in composed[slot]]
    if not slots:
        raise UserError(f"{key}={shorten(value)} has no effect: no slot of this method has a {key}")
    return [f"{slot}.{key}={_to_hydra(value)}" for slot in slots]


@cache
def _resolve(overrides: tuple[str, ...]) -> RunConfig:
    config = resolve(_compose(overrides))
    refuse_inert(config, overrides)
    return config


@cache
def _compose(overrides: tuple[str, ...]) -> DictConfig:
    with _own_hydra():
        return compose(overrides)


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Set aside the Hydra of the calling program, if it runs in one."""
    state = Singleton.get_state()
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        Singleton.set_state(state)


def _to_hydra(value: Any) -> str:
    """Write a Python value in the grammar of Hydra's overrides."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_to_hydra(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_to_hydra, value)) + "]"
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)
