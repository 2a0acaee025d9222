"""Turn a composed configuration into a validated, typed `RunConfig`."""

from __future__ import annotations

import os
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unipeft_run.config.eval_schema import EvalConfig
from unipeft_run.config.legality import check_places, check_slot
from unipeft_run.config.rules import check_combinations
from unipeft_run.config.schema import RunConfig
from unipeft_run.config.tuners import check_tuner
from unipeft_run.config.validation import check, find_missing, missing_error, validate
from unipeft_run.data.tasks.split_files import is_hub_name
from unipeft_run.errors import UserError

PATHS = (
    ("task", "path"),
    ("task", "data"),
    ("backbone", "path"),
    ("tracking", "tensorboard"),
    (None, "output"),
    (None, "data"),
)


def resolve(cfg: DictConfig) -> RunConfig:
    """Validate a composed configuration: it is complete, well typed and every combination legal.

    Relative paths become absolute, so that the configuration means the same in another folder.
    Raises UserError with one sentence that names the key.
    """
    return resolve_data(_plain(cfg))


def read_eval_config(cfg: DictConfig) -> EvalConfig:
    """Validate the configuration of `unipeft eval`; make its paths absolute. Raises UserError."""
    return check(EvalConfig, with_absolute_paths(_plain(cfg)))


def _plain(cfg: DictConfig) -> dict[Any, Any]:
    """Plain data without ???, expressions and Hydra's own settings. Raises UserError."""
    for path in find_missing(OmegaConf.to_container(cfg)):
        raise missing_error(path)
    try:
        data = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        if refusal := _find_refusal(error):
            raise refusal from None
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    assert isinstance(data, dict)
    data.pop("hydra", None)
    return data


def _find_refusal(error: BaseException | None) -> UserError | None:
    """Find the UserError that a resolver raised, such as by_size."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def resolve_data(data: dict[Any, Any]) -> RunConfig:
    """Validate plain data as `resolve` validates a composed configuration."""
    recipe = data.get("recipe")
    if isinstance(recipe, dict) and recipe.get("max_steps") is not None:
        data = {**data, "recipe": {**recipe, "epochs": None}}  # max_steps takes precedence
    config = validate(with_absolute_paths(data))
    check_combinations(config)
    check_tuner(config)
    for name, slot in config.slots().items():
        check_slot(name, slot)
    check_places(config.slots())
    return config


def with_absolute_paths(data: dict[Any, Any]) -> dict[Any, Any]:
    """Return the configuration `data` with absolute paths. Raises UserError for an empty one."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    for section, key in PATHS:
        node = data if section is None else data.get(section)
        if not isinstance(node, dict) or not isinstance(path := node.get(key), str):
            continue
        name = ".".join(part for part in (section, key) if part)
        if not path.strip():
            place = "FILE" if key == "data" else "DIR"
            raise UserError(f"{name} is empty; give {name}={place}, or leave it out")
        stays = key == "output" or (section == "task" and key == "data" and is_hub_name(path))
        if not stays:  # output can be moved
            node[key] = make_absolute(path)
    return data


def make_absolute(path: str) -> str:
    """Make a path absolute; ~ is the home folder."""
    return os.path.abspath(os.path.expanduser(path))
