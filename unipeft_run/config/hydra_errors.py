"""Explain Hydra's errors about a command line, each in one clear sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from unipeft_run.config.engine_keys import explain_engine_key
from unipeft_run.config.messages import (
    Illegal,
    dotted_keys,
    find_option,
    groups,
    list_options,
    nearest,
    options,
    shorten,
    unknown_choice,
    unknown_key,
    unknown_option,
)
from unipeft_run.config.schema import AXES, SLOTS
from unipeft_run.config.several_values import explain_several_values
from unipeft_run.config.short_keys import short_keys
from unipeft_run.config.yaml_files import describe_yaml_error, load_config
from unipeft_run.errors import UserError
from unipeft_run.extensions import config_dirs

Compose = Callable[[Sequence[str], str], DictConfig]
# raised by composing; TypeError comes from a group given a list of numbers, UserWarning from
# a missing folder in hydra.searchpath, OSError from a file that holds no keys
COMPOSE_ERRORS = (
    *(HydraException, OmegaConfBaseException, ValueError, TypeError, UserWarning),
    *(YAMLError, OSError),
)
REQUIRED = ("task", "method")
FOREIGN_KEYS = {  # keys of other tools -> ours
    "model": "backbone",
    "model_name_or_path": "backbone.path",
    "dataset": "task",
    "data": "task.path",
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
    "overwrite_output_dir": "force",
}
ADVICE = {  # keys of other tools that have no counterpart -> what to do
    key: "a run resumes by itself: repeat its command"
    for key in ("resume", "resume_from", "resume_from_checkpoint")
}
PROBE = {"train": ["task=sst2", "method=mam"], "eval": []}  # overrides that always compose


def explain_compose_error(
    error: Exception, overrides: Sequence[str], config_name: str, compose: Compose
) -> UserError:
    """Explain what is wrong with `overrides`, given the error that `compose` raised."""
    if isinstance(error, UserError):
        return error
    is_file_error = isinstance(error, YAMLError | OSError | UnicodeDecodeError)
    if is_file_error and not isinstance(error, HydraException):
        return _find_broken_file(overrides) or UserError(_describe_file_error(error))
    found = re.search(r"Could not override '([^']+)'", str(error))
    if found and found[1].partition(".")[0] in SLOTS:
        rest = [o for o in overrides if _key(o) != found[1]]
        if reason := _explain_inert_key(found[1], _composed_keys(compose, rest, config_name)):
            return Illegal(reason)
    known = _known_keys(compose, config_name, config_dirs())
    if sentence := _find_wrong_override(overrides, known):
        return UserError(sentence)
    return explain_several_values(error) or UserError(
        _describe_error(error, overrides, config_name, compose)
    )


def _find_broken_file(overrides: Sequence[str]) -> UserError | None:
    """Return what is wrong with the first broken file that an override selects, if any."""
    for override in overrides:
        key, _, value = override.partition("=")
        group = key.lstrip("+").partition("@")[0]
        if group not in groups() or value not in options(group):
            continue
        try:
            load_config(find_option(group, value))
        except UserError as problem:
            return problem
    return None


def _describe_file_error(error: Exception) -> str:
    return describe_yaml_error(error) if isinstance(error, YAMLError) else shorten(error, 160)


def _find_wrong_override(overrides: Sequence[str], known: Sequence[str]) -> str | None:
    """Explain the first override that is wrong by itself; None if there is none."""
    short = short_keys(overrides)
    for override in overrides:
        if sentence := _explain_override(override, [*short, *known]):
            return sentence
        if re.fullmatch(r"(task|method)=(null)?", override):
            return explain_missing([o for o in overrides if _key(o) != _key(override)])
    return None


def _describe_error(
    error: Exception, overrides: Sequence[str], config_name: str, compose: Compose
) -> str:
    if isinstance(error, MissingConfigException):
        return _explain_missing_file(error, overrides)
    if isinstance(error, OverrideParseException):
        return explain_hydra_error(error)
    if "You must specify" in str(error):
        return explain_missing(overrides)
    if found := re.search(r"Could not override '([^']+)'", str(error)):
        rest = [o for o in overrides if _key(o) != found[1]]
        known = _composed_keys(compose, rest, config_name)
        known = known or _known_keys(compose, config_name, config_dirs())
        return explain_engine_key(found[1], overrides) or _explain_missing_key(found[1], known)
    return explain_hydra_error(error)


def explain_hydra_error(error: Exception) -> str:
    """Explain an error from its message alone."""
    if isinstance(error, OverrideParseException):
        word = shorten(error.override)
        if error.override.endswith(","):
            return f"cannot read {word}; leave out the comma at its end"
        return f"cannot read {word}; quote it, as in 'key=\"value, (with) signs\"'"
    return _reword(str(error))


def _reword(message: str) -> str:
    """Say in our words what Hydra says without a suggestion."""
    if found := re.search(r"Error merging override (\S+?)=(.*)", message, re.DOTALL):
        return f"{found[1]}={shorten(found[2])}: not a value of the kind that {found[1]} holds"
    if found := re.search(r"provider=hydra.searchpath.*path=(.*) is not available", message):
        return f"hydra.searchpath: there is no folder {found[1]}"
    if found := re.search(r"An item is already at '([^']+)'", message):
        return f"{found[1]} exists already; leave out the + before it"
    return shorten(message.replace("\n", "; "), 160)


def explain_missing(overrides: Sequence[str], verb: str = "run") -> str:
    """Say which of task= and method= are missing; `verb`: what the command does."""
    keys = {_key(override) for override in overrides}
    missing = [name for name in REQUIRED if name not in keys]
    return f"nothing to {verb} yet: give " + " and ".join(
        f"{name}= one of {', '.join(list_options(name))}" for name in missing
    )


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _explain_override(override: str, known: list[str]) -> str | None:
    return (
        _explain_syntax(override)
        or _explain_unknown_key(override, known)
        or _explain_empty_axis(override)
        or _explain_group_value(override)
    )


def _explain_syntax(override: str) -> str | None:
    if "=" in override or override.startswith("~"):
        return None
    return f"{shorten(override)} is not key=value; see --help"


def _explain_unknown_key(override: str, known: list[str]) -> str | None:
    """Explain a key whose first part, before any dot or @, is neither a section nor a group."""
    key = _key(override)
    section = re.split(r"[.@]", key)[0]
    sections = {name.partition(".")[0] for name in known} | set(groups())
    if section in sections or section == "hydra" or key.startswith("hydra/"):
        return None
    if advice := ADVICE.get(key):
        return f"there is no key {key}; {advice}"
    if ours := FOREIGN_KEYS.get(key):
        return f"there is no key {key}; did you mean {ours}?"
    if near := nearest(section, sections):
        return f"there is no key {shorten(key)}; did you mean {key.replace(section, near, 1)}?"
    return unknown_key(key, known)


def _explain_empty_axis(override: str) -> str | None:
    key, _, value = override.partition("=")
    axis, _, slot = key.partition("@")
    if axis not in AXES or slot not in SLOTS or value not in ("null", ""):
        return None
    return f"{key} cannot be {value or 'empty'}; {slot}=null empties the slot"


def _explain_group_value(override: str) -> str | None:
    """Explain a group that is deleted, or set to what names no file of it."""
    key, _, value = override.partition("=")
    group = key.lstrip("~")
    if group not in groups() or group in ("experiment", "hparams_search", *AXES):
        return None
    names = shorten(", ".join(list_options(group)), 90)
    if key != group:
        return f"{shorten(override)}: a run needs {group}=, one of {names}"
    no_name = re.fullmatch(r"[\[{].*|[-+.\d]+|true|false", value, re.DOTALL)
    if no_name or (value == "null" and key not in REQUIRED):
        return f"{key} cannot be {shorten(value)}; leave it out, or choose from {names}"
    return None


def _explain_missing_file(error: MissingConfigException, overrides: Sequence[str]) -> str:
    path = str(error.missing_cfg_file)
    for override in overrides:
        key, _, value = override.partition("=")
        group = key.lstrip("+").partition("@")[0]
        if path == f"{group}/{value}":
            nested = group in groups() and "/" in "".join(options(group))
            sentence = (
                unknown_option(group, value, key)
                if nested
                else unknown_choice(key, value, error.options or options(group))
            )
            if group in ("backbone", "task") and is_path(value):
                hint = {"backbone": "did you mean ", "task": "give its task too: task=NAME "}[group]
                return f"{key}={value} is a path; {hint}{group}.path={value}"
            return sentence + (
                "; other engines are extras, as in pip install 'unipeft[joblib]'"
                if group == "hydra/launcher"
                else ""
            )
    group, _, name = path.partition("/")
    return f"there is no {group} {name}; give {group}= one of {', '.join(list_options(group))}"


def is_path(value: str) -> bool:
    """Return whether `value` is written as a path, or names a folder."""
    return "/" in value or value.startswith(("~", ".")) or os.path.isdir(value)


def _explain_missing_key(key: str, known: list[str]) -> str:
    axis, at, _ = key.partition("@")
    if axis in AXES:
        slots = [f"{axis}@{slot}" for slot in SLOTS]
        if at:
            return unknown_key(key, slots)
        return f"{axis}= needs its slot; write {', '.join(f'{slot}=' for slot in slots)}"
    return unknown_key(key, [*known, *groups()])


def _explain_inert_key(key: str, known: list[str]) -> str | None:
    """Explain why a slot's key has no effect in a configuration with the keys `known`."""
    slot, _, name = key.partition(".")
    if known and not any(other.startswith(f"{slot}.") for other in known):
        axes = " ".join(f"{axis}@{slot}=..." for axis in AXES)
        return f"slot {slot} is empty here, so {key} has no effect; fill it with {axes}"
    if known and name == "scale":
        return f"{key} has no effect here: only composition@{slot}=scaled takes a scale"
    return None


@cache
def _known_keys(compose: Compose, config_name: str, folders: tuple[Path, ...]) -> list[str]:
    """List the dotted keys of a configuration. `folders`: those that extend the groups."""
    del folders
    return _composed_keys(compose, PROBE[config_name], config_name)


def _composed_keys(compose: Compose, overrides: Sequence[str], config_name: str) -> list[str]:
    """List the dotted keys of the configuration composed from `overrides`; [] on an error."""
    try:
        cfg = compose(overrides, config_name)
    except COMPOSE_ERRORS:
        return []
    return list(dotted_keys(OmegaConf.to_container(cfg)))
