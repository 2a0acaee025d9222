"""Compose the YAML groups of conf/ with Hydra."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import get_args

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unipeft_run.config.by_data import register_resolvers
from unipeft_run.config.experiments import refuse_experiment
from unipeft_run.config.hydra_errors import COMPOSE_ERRORS, explain_compose_error
from unipeft_run.config.messages import groups
from unipeft_run.config.presets import preset_axes, register_presets
from unipeft_run.config.schema import SLOTS, OptimizerName
from unipeft_run.config.short_keys import TEXTS, VERBATIM, expand_short_keys
from unipeft_run.extensions import conf_dir, file_stamp, with_search_path

HYDRA_GROUPS = ("hydra/launcher", "hydra/sweeper")
PATH_KEYS = (
    *("task.path", "backbone.path", "tracking.tensorboard", "output", "run", "data"),
    *VERBATIM,
)
# Paths and words that Hydra reads as strings without quotes; true, 2024 and 1e5 are other types
UNQUOTED = re.compile(
    r"[\w.-]*/[\w./-]*|(?!(?:true|false|inf|nan)$)[A-Za-z_][\w.-]*", re.IGNORECASE | re.ASCII
)
QUOTED_NAME = re.compile(r"(['\"])([\w./-]+)\1")  # of a choice of a group
VALUE = re.compile(r"(seed|output|\w+(\.\w+)+)=")  # the key of a value, not of a choice
SIZE = re.compile(rf"\+\+?(?=({'|'.join(SLOTS)})\.(bottleneck|scale|mlp_width)=)")
FIELDS = ("peft.config.", "backbone.config.")  # of a library or a model: the groups name a few
NOTHING = ("experiment=null", "hparams_search=null")  # as in train.yaml; Hydra refuses them
QUOTED = re.compile(r"'.*'|\".*\"", re.DOTALL)
EXPRESSION = re.compile(r".*['\"\\$].*|[\[{].*|\w+\(.*\)", re.DOTALL | re.ASCII)  # left to Hydra


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
    words = (*overrides, *implied_overrides(overrides))
    if any(word.startswith("hydra.") for word in words):  # may name other folders with files
        return _load(config_name, words, None)
    values = [word for word in words if VALUE.match(word)]
    choices = tuple(word for word in words if word not in values)
    composed = copy.deepcopy(_load_once(config_name, choices, file_stamp(conf_dir())))
    return composed if _set_values(composed, values) else _load(config_name, words, None)


def _set_values(composed: DictConfig, words: Sequence[str]) -> bool:
    """Set values as Hydra does; return False if one of them is anything but a plain value."""
    try:
        for override in OverridesParser.create().parse_overrides(list(words)):
            if override.is_sweep_override() or override.package is not None:
                return False
            OmegaConf.update(composed, override.key_or_group, override.value(), merge=True)
    except (HydraException, OmegaConfBaseException):  # Hydra composes it again, and says why
        return False
    return True


def _load(config_name: str, overrides: tuple[str, ...], stamp: object) -> DictConfig:
    """Compose with Hydra. `stamp`: of the files, which may be edited in a long process."""
    del stamp
    with (
        hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("error", "provider=hydra.searchpath")  # a missing folder
        return hydra.compose(config_name, list(overrides))


_load_once = lru_cache(maxsize=256)(_load)  # the cells of a grid share most choices of groups


def normalise_overrides(words: Sequence[str]) -> list[str]:
    """Expand short keys, and quote paths and names that Hydra would misread.

    Examples are ~/data, 2024 and größe. A comma separates the values of a grid, as in other
    overrides, but not in a text such as a prompt's template.
    """
    plain = [_plain_choice(SIZE.sub("", word)) for word in words]
    expanded = [_as_addition(word) for word in expand_short_keys(plain) if word not in NOTHING]
    return [_with_quoted_value(word) for word in expanded]


def _plain_choice(word: str) -> str:
    """Write the choice of a group without + and quotes, so that every reader sees one spelling."""
    key, equals, value = word.partition("=")
    group = key.lstrip("+").partition("@")[0]
    if not equals or not (group in groups() or group in HYDRA_GROUPS):
        return word
    plain = QUOTED_NAME.sub(r"\2", value)
    return f"{key.lstrip('+')}={plain}"


def _as_addition(word: str) -> str:
    """Let a field be set whether the chosen file sets it or not."""
    return f"++{word}" if word.startswith(FIELDS) else word


def _with_quoted_value(word: str) -> str:
    key, _, value = word.partition("=")
    if key.lstrip("+") in TEXTS and value != "null" and not QUOTED.fullmatch(value):
        text = value.replace("\\n", "\n").replace("'", r"\'")
        return f"{key}='{text}'"
    is_word = key.lstrip("+") in PATH_KEYS or not value.isascii()
    if not is_word or EXPRESSION.fullmatch(value):
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
    plain = [_plain_choice(override.lstrip("+")) for override in overrides]
    values = dict(override.split("=", 1) for override in plain if "=" in override)
    by_epochs = values.get("recipe.epochs", "null") != "null"
    implied = ["recipe.max_steps=null"] if by_epochs and "recipe.max_steps" not in values else []
    optimizer = values.get("optim")
    if optimizer in get_args(OptimizerName) and "optim.name" not in values:
        implied.append(f"optim.name={optimizer}")
    return [*implied, *preset_axes(values)]
