"""Compose the YAML groups of conf/ with Hydra."""

from __future__ import annotations

from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

from unipeft_run.config.experiments import refuse_experiment
from unipeft_run.config.hydra_errors import COMPOSE_ERRORS, explain_compose_error
from unipeft_run.config.messages import conf_dir
from unipeft_run.config.presets import register_presets


def compose(overrides: Sequence[str], config_name: str = "train") -> DictConfig:
    """Compose the configuration for the overrides of a command line. Raises UserError."""
    refuse_experiment(overrides)
    try:
        return _compose(overrides, config_name)
    except COMPOSE_ERRORS as error:
        raise explain_compose_error(error, overrides, config_name, _compose) from None


def _compose(overrides: Sequence[str], config_name: str) -> DictConfig:
    register_presets()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose(config_name, [*overrides, *implied_overrides(overrides)])


def implied_overrides(overrides: Sequence[str]) -> list[str]:
    """Return further overrides that these imply: recipe.epochs overrides recipe.max_steps."""
    values = dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    by_epochs = values.get("recipe.epochs", "null") != "null"
    return ["recipe.max_steps=null"] if by_epochs and "recipe.max_steps" not in values else []
