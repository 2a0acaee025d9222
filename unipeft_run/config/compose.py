"""Compose the YAML groups of conf/ with Hydra."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import get_args

import hydra
from omegaconf import DictConfig

from unipeft_run.config.by_data import register_resolvers
from unipeft_run.config.experiments import refuse_experiment
from unipeft_run.config.hydra_errors import COMPOSE_ERRORS, explain_compose_error
from unipeft_run.config.presets import preset_axes, register_presets
from unipeft_run.config.schema import OptimizerName
from unipeft_run.config.short_keys import TEXTS, VERBATIM, expand_short_keys
from unipeft_run.extensions import conf_dir, with_search_path

PATH_KEYS = (
    *("task.path", "backbone.path", "tracking.tensorboard", "output", "run", "data"),
    *VERBATIM,
)
# Paths and words that Hydra reads as strings without quotes; true, 2024 and 1e5 are other types
UNQUOTED = re.compile(
    r"[\w.-]*/[\w./-]*|(?!(?:true|false|inf|nan)$)[A-Za-z_][\w.-]*", re.IGNORECASE
)
TUNER_FIELDS = "peft.config."
QUOTED = re.compile(r"'.*'|\".*\"", re.DOTALL)
EXPRESSION = re.compile(r".*['\"\\$].*|[\[{].*|\w+\(.*\)", re.DOTALL)  # left to Hydra


def compose(overrides: Sequence[str], config_name: str = "train") -> DictConfig:
    """Compose the configuration for the overrides of a command line. Raises UserError."""
    overrides = with_search_path(normalise_overrides(overrides))
    refuse_experiment(overrides)
    try:
        return _compose(overrides, config_name)
    except COMPOSE_ERRORS as error:
        raise explain_compose_error(error, overrides, config_name, _compose) from None


def _compose(overrides: Sequence[str], config_name: str) -> DictConfig:
    register_presets()
    register_resolvers()
    with (
        hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("error", "provider=hydra.searchpath")  # a missing folder
        return hydra.compose(config_name, [*overrides, *implied_overrides(overrides)])


def normalise_overrides(words: Sequence[str]) -> list[str]:
    """Expand short keys, and quote paths and names that Hydra would misread.

    Examples are ~/data and 2024. A comma separates the values of a grid, as in other overrides, but
    not in a text such as a prompt's template.
    """
    return [_with_quoted_value(_as_addition(word)) for word in expand_short_keys(words)]


def _as_addition(word: str) -> str:
    """Let a field of the PEFT library be set whether the method's file sets it or not."""
    return f"++{word}" if word.startswith(TUNER_FIELDS) else word


def _with_quoted_value(word: str) -> str:
    key, _, value = word.partition("=")
    if key.lstrip("+") in TEXTS and value != "null" and not QUOTED.fullmatch(value):
        text = value.replace("\\n", "\n").replace("'", r"\'")
        return f"{key}='{text}'"
    if key.lstrip("+") not in PATH_KEYS or EXPRESSION.fullmatch(value):
        return word
    return f"{key}={','.join(map(_quote, value.split(',')))}"


def _quote(path: str) -> str:
    plain = path in ("", "null", "???") or UNQUOTED.fullmatch(path)
    return path if plain else f"'{path}'"


def implied_overrides(overrides: Sequence[str]) -> list[str]:
    """Return further overrides that these imply.

    recipe.epochs overrides recipe.max_steps, optim=NAME the optimiser that a recipe names, and a
    preset chooses axes.
    """
    values = dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    by_epochs = values.get("recipe.epochs", "null") != "null"
    implied = ["recipe.max_steps=null"] if by_epochs and "recipe.max_steps" not in values else []
    optimizer = values.get("optim")
    if optimizer in get_args(OptimizerName) and "optim.name" not in values:
        implied.append(f"optim.name={optimizer}")
    return [*implied, *preset_axes(values)]
