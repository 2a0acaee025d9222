"""The supported sweeper plugins of Hydra, and how each is configured for a search.

Hydra's sweepers share an interface, but each has its own keys for the direction and the storage.
A plugin is supported by its row in `SWEEPERS`.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, open_dict, read_write

from unipeft_run.errors import UserError

SAMPLER_SEED = 42  # unless hydra.sweeper.sampler.seed is set: a search must be repeatable


@dataclass(frozen=True)
class Sweeper:
    """A sweeper plugin.

    `module`: the plugin's. `defaults()` returns its configuration with our defaults.
    `prepare(settings, direction, folder)` fills in hydra.sweeper for a metric to `maximize` or
    `minimize`; raises UserError for settings that cannot work here.
    """

    module: str
    defaults: Callable[[], Any]
    prepare: Callable[[DictConfig, str, Path], None]


def prepare_sweeper(config: DictConfig, direction: str, folder: Path) -> None:
    """Fill in `config.hydra.sweeper`; the sweeper keeps its files in `folder`. Raises UserError."""
    name = config.hydra.runtime.choices["hydra/sweeper"]
    settings = config.hydra.sweeper
    with read_write(config), open_dict(config):
        SWEEPERS[name].prepare(settings, direction, folder)


def require_sweeper(name: str) -> None:
    """Raise UserError if the sweeper `name` is not supported or not installed."""
    if name not in SWEEPERS:
        known = ", ".join(["basic", *SWEEPERS])
        raise UserError(f"hydra/sweeper={name} is not supported; choose from {known}")
    if not _is_installed(SWEEPERS[name]):
        raise UserError(f"hydra/sweeper={name} needs pip install 'unipeft[{name}]'")


def register_sweepers() -> None:
    """Replace the defaults of the installed plugins by ours.

    A file in conf/hydra/sweeper cannot do this: Hydra refuses to merge it with the plugin's.
    """
    for name, sweeper in SWEEPERS.items():
        if _is_installed(sweeper):
            store = ConfigStore.instance()
            store.store(name, sweeper.defaults(), group="hydra/sweeper", provider="unipeft")


def _is_installed(sweeper: Sweeper) -> bool:
    return find_spec("hydra_plugins") is not None and find_spec(sweeper.module) is not None


def _optuna_defaults() -> Any:
    """Return Optuna's defaults: one trial at a time, and a failed trial does not end the search."""
    from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf

    return OptunaSweeperConf(direction=None, n_jobs=1, max_failure_rate=1.0)


def _prepare_optuna(settings: DictConfig, direction: str, folder: Path) -> None:
    _refuse(settings, ("storage", "study_name"), f"the study is stored in {folder}; leave it out")
    _refuse(settings, ("search_space",), "has become hydra.sweeper.params in Hydra 1.2")
    if settings.direction not in (None, direction):
        raise UserError(
            f"hydra.sweeper.direction={settings.direction}: the task's selection metric has "
            f"{direction}; leave it out, or set task.selection"
        )
    for key in ("n_trials", "n_jobs"):
        if settings[key] < 1:
            raise UserError(f"hydra.sweeper.{key}={settings[key]}: must be at least 1")
    sampler = settings.sampler
    if "seed" not in sampler:
        raise UserError(
            f"hydra.sweeper.sampler={sampler['_target_']}: takes no seed, so that the search could "
            "not be resumed; choose tpe, random, cmaes or nsgaii, and -m alone for a whole grid"
        )
    if sampler.seed is None:
        sampler.seed = SAMPLER_SEED
    file = folder.absolute() / "study.db"
    settings.update(direction=direction, storage=f"sqlite:///{file}", study_name="unipeft")
    file.unlink(missing_ok=True)  # the study is rebuilt: finished trials return at once
    _silence_optuna()


def _refuse(settings: Mapping[str, Any], keys: tuple[str, ...], reason: str) -> None:
    for key in keys:
        if settings.get(key) is not None:
            raise UserError(f"hydra.sweeper.{key}={settings[key]}: {reason}")


def _silence_optuna() -> None:
    """Turn off logs that our own lines repeat, and warnings about the age of Optuna 2."""
    os.environ.setdefault("SQLALCHEMY_SILENCE_UBER_WARNING", "1")
    for module in ("optuna", "alembic", "sqlalchemy", "hydra_plugins.hydra_optuna_sweeper"):
        warnings.filterwarnings("ignore", module=module)
    import optuna

    optuna.logging.set_verbosity(logging.ERROR)
    logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.CRITICAL)


SWEEPERS = {
    "optuna": Sweeper("hydra_plugins.hydra_optuna_sweeper", _optuna_defaults, _prepare_optuna)
}
