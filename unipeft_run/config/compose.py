"""Compose the YAML groups of conf/ with Hydra."""

from __future__ import annotations

from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

from unipeft_run.config.experiments import refuse_experiment
from unipeft_run.config.hydra_errors import UNREADABLE, complaint
from unipeft_run.config.messages import conf_dir
from unipeft_run.config.presets import register_presets


def compose(overrides: Sequence[str], config_name: str = "train") -> DictConfig:
    """Compose the configuration of a command line. Raises UserError."""
    refuse_experiment(overrides)
    try:
        return _compose(overrides, config_name)
    except UNREADABLE as error:
        raise complaint(error, overrides, config_name, _compose) from None


def _compose(overrides: Sequence[str], config_name: str) -> DictConfig:
    register_presets()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose(config_name, [*overrides, *implied(overrides)])


def implied(overrides: Sequence[str]) -> list[str]:
    """The overrides that a command line implies: recipe.epochs overrides recipe.max_steps."""
    given = dict(word.lstrip("+").split("=", 1) for word in overrides if "=" in word)
    by_epochs = given.get("recipe.epochs", "null") != "null"
    return ["recipe.max_steps=null"] if by_epochs and "recipe.max_steps" not in given else []
