"""Turn Hydra's errors about a command line into one clear sentence each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unipeft_run.config.messages import (
    Illegal,
    groups,
    nearest,
    options,
    shown,
    unknown_choice,
    unknown_key,
)
from unipeft_run.config.schema import AXES, SLOTS
from unipeft_run.errors import UserError

Compose = Callable[[Sequence[str], str], DictConfig]
# what composing may raise; TypeError comes from a group given a list of numbers, UserWarning from
# a missing folder in hydra.searchpath
UNREADABLE = (HydraException, OmegaConfBaseException, ValueError, TypeError, UserWarning)
NEEDED = ("task", "method")
WORDS = {  # keys of other tools -> ours
    "model": "backbone",
    "model_name_or_path": "backbone.path",
    "dataset": "task",
    "data": "task.path",
    "peft": "method",
    "adapter": "method",
    "learning_rate": "optim.lr",
    "optimizer": "optim",
    "scheduler": "optim.schedule",
    "steps": "recipe.max_steps",
    "num_train_epochs": "recipe.epochs",
    "rank": "ffn.bottleneck or attn.bottleneck",
    "r": "ffn.bottleneck or attn.bottleneck",
    "alpha": "ffn.scale",
    "beams": "evaluation.decoding.num_beams",
    "wandb": "tracking.wandb.mode",
    "output_dir": "output",
    "resume": "force",
}
PROBE = {"train": ["task=sst2", "method=mam"], "eval": []}


def complaint(
    error: Exception, overrides: Sequence[str], config_name: str, compose: Compose
) -> UserError:
    """Explain what is wrong with `overrides`, given the error that `compose` raised."""
    found = re.search(r"Could not override '([^']+)'", str(error))
    if found and found[1].partition(".")[0] in SLOTS:
        rest = [o for o in overrides if _key(o) != found[1]]
        if reason := _no_use(found[1], _known(compose, rest, config_name)):
            return Illegal(reason)
    return UserError(_explain(error, overrides, config_name, compose))


def _explain(error: Exception, overrides: Sequence[str], config_name: str, compose: Compose) -> str:
    known = _known(compose, PROBE[config_name], config_name)
    for override in overrides:
        if sentence := _unsuitable(override, known):
            return sentence
        if re.fullmatch(r"(task|method)=(null)?", override):
            return needed([o for o in overrides if _key(o) != _key(override)])
    if isinstance(error, MissingConfigException):
        return _no_such_file(error, overrides)
    if isinstance(error, OverrideParseException):
        return f"cannot read {shown(error.override)}; quote it, as in 'key=\"value, (with) signs\"'"
    if "You must specify" in str(error):
        return needed(overrides)
    if found := re.search(r"Could not override '([^']+)'", str(error)):
        rest = [o for o in overrides if _key(o) != found[1]]
        return _no_such_key(found[1], _known(compose, rest, config_name) or known)
    return _reword(str(error))


def _reword(message: str) -> str:
    """Say in our words what Hydra says without a suggestion."""
    if found := re.search(r"Ambiguous value for argument '([^']+)'", message):
        return f"{shown(found[1])} names several values; add -m to run each of them"
    if found := re.search(r"Error merging override (\S+?)=(.*)", message, re.DOTALL):
        return f"{found[1]}={shown(found[2])}: not a value of the kind that {found[1]} holds"
    if found := re.search(r"provider=hydra.searchpath.*path=(.*) is not available", message):
        return f"hydra.searchpath: there is no folder {found[1]}"
    if found := re.search(r"An item is already at '([^']+)'", message):
        return f"{found[1]} exists already; leave out the + before it"
    return shown(message.replace("\n", "; "), 160)


def needed(overrides: Sequence[str]) -> str:
    """Say which of task= and method= are missing."""
    keys = {_key(override) for override in overrides}
    missing = [name for name in NEEDED if name not in keys]
    return "nothing to run yet: give " + " and ".join(
        f"{name}= one of {', '.join(options(name))}" for name in missing
    )


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _unsuitable(override: str, known: list[str]) -> str | None:
    return _unreadable(override) or _unknown_front(override, known) or _no_option(override)


def _unreadable(override: str) -> str | None:
    if "=" in override or override.startswith("~"):
        return None
    return f"{shown(override)} is not key=value; see --help"


def _unknown_front(override: str, known: list[str]) -> str | None:
    """Explain a word before the first dot or @ that is neither a key nor a group."""
    key = _key(override)
    front = re.split(r"[.@]", key)[0]
    fronts = {name.partition(".")[0] for name in known} | set(groups())
    if front in fronts or front == "hydra" or key.startswith("hydra/"):
        return None
    if ours := WORDS.get(key):
        return f"there is no key {key}; did you mean {ours}?"
    if near := nearest(front, fronts):
        return f"there is no key {shown(key)}; did you mean {key.replace(front, near, 1)}?"
    return unknown_key(key, known)


def _no_option(override: str) -> str | None:
    """Explain a group that is deleted, or set to what names no file of it."""
    key, _, value = override.partition("=")
    group = key.lstrip("~")
    if group not in groups() or group in ("experiment", *AXES):
        return None
    names = shown(", ".join(options(group)), 90)
    if key != group:
        return f"{shown(override)}: a run needs {group}=, one of {names}"
    no_name = re.fullmatch(r"[\[{].*|[-+.\d]+|true|false", value, re.DOTALL)
    if no_name or (value == "null" and key not in NEEDED):
        return f"{key} cannot be {shown(value)}; leave it out, or choose from {names}"
    return None


def _no_such_file(error: MissingConfigException, overrides: Sequence[str]) -> str:
    path = str(error.missing_cfg_file)
    for override in overrides:
        key, _, value = override.partition("=")
        group = key.lstrip("+").partition("@")[0]
        if path == f"{group}/{value}":
            sentence = unknown_choice(key, value, error.options or options(group))
            return sentence + (
                "; other engines are extras, as in pip install 'unipeft[joblib]'"
                if group == "hydra/launcher"
                else ""
            )
    group, _, name = path.partition("/")
    return f"there is no {group} {name}; give {group}= one of {', '.join(options(group))}"


def _no_such_key(key: str, known: list[str]) -> str:
    front, at, _ = key.partition("@")
    if front in AXES:
        slots = [f"{front}@{slot}" for slot in SLOTS]
        if at:
            return unknown_key(key, slots)
        return f"{front}= needs its slot; write {', '.join(f'{slot}=' for slot in slots)}"
    return unknown_key(key, [*known, *groups()])


def _no_use(key: str, known: list[str]) -> str | None:
    """Explain why a slot's key has no effect in a configuration with the keys `known`."""
    slot, _, number = key.partition(".")
    if known and not any(name.startswith(f"{slot}.") for name in known):
        axes = " ".join(f"{axis}@{slot}=..." for axis in AXES)
        return f"slot {slot} is empty here, so {key} has no effect; fill it with {axes}"
    if known and number == "scale":
        return f"{key} has no effect here: only composition@{slot}=scaled takes a scale"
    return None


def _known(compose: Compose, overrides: Sequence[str], config_name: str) -> list[str]:
    """List the dotted keys of the configuration that `overrides` compose to; [] on an error."""
    try:
        cfg = compose(overrides, config_name)
    except UNREADABLE:
        return []
    return list(_paths(OmegaConf.to_container(cfg)))


def _paths(node: Any, path: str = "") -> Iterator[str]:
    if path:
        yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _paths(value, f"{path}.{key}" if path else str(key))
