"""Turn a method's name, axes and sizes into a validated configuration, through conf/."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from omegaconf import DictConfig, OmegaConf

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.config import RunConfig, compose, resolve
from unipeft_run.config.declarations import forget_edited
from unipeft_run.config.inert import refuse_inert
from unipeft_run.config.messages import (
    options,
    shorten,
    unknown_key,
    unknown_option,
)
from unipeft_run.config.presets import register_presets
from unipeft_run.config.schema import AXES, SLOTS, SlotConfig
from unipeft_run.errors import UserError

# type of task -> the task of the paper whose sizes are the defaults
TASKS = {
    "seq2seq": "xsum",
    "causal": "xsum",
    "classification": "sst2",
    "image_classification": "sst2",
    "retrieval": "sst2",
}
SIZES = tuple(name for name in SlotConfig.model_fields if name not in AXES)
WORD = re.compile(r"[A-Za-z_][\w.-]*")  # what Hydra reads as a string without quotes
# an axis on a command line
IN_A_SHELL = re.compile(rf"({'|'.join(AXES)})@({'|'.join(SLOTS)})=([\w./]+(?: is unknown)?)")
CUSTOM = "custom"  # the name of a delta that is described by its axes alone


def configure(family: str, method: str | None, choices: Mapping[str, Any]) -> RunConfig:
    """Return the configuration of `method`, changed by `choices`, for a family of backbones.

    `choices` holds a slot (`attn`, `ffn`, `input`, `matrix`) with a mapping of its axes and sizes
    or None, a size for every slot (`bottleneck`, `scale`, `mlp_width`), or a dotted key
    (`attn.bottleneck`). Raises UserError.
    """
    forget_edited()
    try:
        config = _configure(family, method, {k: _to_plain(k, v) for k, v in choices.items()})
    except UserError as error:
        raise type(error)(IN_A_SHELL.sub(_to_python, str(error))) from None
    if method is None and not config.slots():
        raise UserError(
            f"nothing to attach: give a method, one of {', '.join(options('method'))}, "
            'or the axes of a slot, as in ffn=dict(form="bottleneck", insertion="parallel", '
            'representation="ffn", composition="add", bottleneck=64)'
        )
    return config


def _to_python(axis: re.Match[str]) -> str:
    """Write an axis of a command line in a message as it is given to `attach`."""
    name, slot, choice = axis.groups()
    if choice.endswith(" is unknown"):
        return f"{slot}: {name} {choice}"
    return f'{slot}=dict({name}="{choice}")'


def _to_plain(key: str, value: Any) -> Any:
    """Replace numbers of NumPy and PyTorch by Python's, in lists and mappings too."""
    if isinstance(value, Mapping):
        return {name: _to_plain(f"{key}.{name}", part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(key, part) for part in value]
    if not (hasattr(value, "dtype") and hasattr(value, "item")):
        return value
    if value.ndim:
        raise UserError(f"{key}={shorten(value)}: must be one number, not an array")
    return value.item()


def _configure(family: str, method: str | None, choices: Mapping[str, Any]) -> RunConfig:
    if method is not None and method not in options("method"):
        raise UserError(unknown_option("method", method))
    overrides, parts = [f"task={_find_task(family)}", f"method={method or 'none'}"], {}
    for key, value in choices.items():
        if key not in SIZES:
            for path, chosen in _flatten(key, value):
                if isinstance(chosen, Mapping):
                    parts[path] = chosen
                else:
                    overrides.append(f"{path}={_to_hydra(chosen)}")
    with _own_hydra():
        composed = compose(overrides)
    for path, part in parts.items():
        OmegaConf.update(composed, path, {"_partial_": True, **part}, merge=False, force_add=True)
    sizes = [size for key in SIZES if key in choices for size in _set_size(composed, key, choices)]
    config = resolve(composed)
    refuse_inert(config, [*overrides, *sizes])
    return config


def _find_task(family: str) -> str:
    """Return the task whose sizes are the defaults for a family: en-ro for mBART."""
    return "wmt16_en_ro" if family == "mbart" else TASKS[FAMILIES[family].task_type]


def _flatten(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the overrides of one choice: the key and its value.

    A mapping is yielded only if it names a class in `_target_`.
    """
    slot, _, name = key.partition(".")
    if slot == "peft" and (name or isinstance(value, Mapping)):
        fields = value if isinstance(value, Mapping) else {name.removeprefix("config."): value}
        yield from ((f"peft.config.{field}", chosen) for field, chosen in fields.items())
        return
    if slot not in SLOTS or (key != slot and not name):
        sizes = [f"{slot}.{size}" for slot in SLOTS for size in SIZES]
        raise UserError(unknown_key(key, [*SLOTS, *SIZES, "name", "unfreeze", "head", *sizes]))
    if isinstance(value, Mapping) and "_target_" not in value:
        for part, chosen in value.items():
            yield from _flatten(f"{key}.{part}", chosen)
    elif name in AXES and isinstance(value, str):
        yield f"{name}@{slot}", value
    elif name or value is None:
        yield key, value
    else:
        raise UserError(
            f"{slot}={shorten(value)}: must be a mapping of axes and sizes, or None for no change"
        )


def _set_size(composed: DictConfig, key: str, choices: Mapping[str, Any]) -> list[str]:
    """Set a size in every slot that has it; return the overrides that do the same."""
    value = choices[key]
    slots = [slot for slot in SLOTS if composed[slot] and key in composed[slot]]
    if not slots:
        raise UserError(f"{key}={shorten(value)} has no effect: no slot of this method has a {key}")
    for slot in slots:
        composed[slot][key] = value
    return [f"{slot}.{key}={value}" for slot in slots]


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Set aside the Hydra of the calling program, if it runs in one."""
    register_presets()  # once per process: they must outlive the state restored below
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
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_to_hydra, value)) + "]"
    if isinstance(value, str) and not WORD.fullmatch(value):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)
