"""Check Hydra's own settings on a command line, and refuse those without effect."""

from __future__ import annotations

from collections.abc import Sequence

from unipeft_run.errors import UserError

LAUNCHER = ("hydra/launcher", "hydra.launcher")
SEARCH_PATH = "hydra.searchpath"
OF_GRIDS = (
    "hydra.verbose",
    "hydra.callbacks",
    "hydra/callbacks",
    "hydra.job_logging",
    "hydra/job_logging",
    "hydra.hydra_logging",
    "hydra/hydra_logging",
)
SWEEPER = ("hydra/sweeper", "hydra.sweeper")
SWEEP_DIR = "hydra.sweep.dir"
FOLDERS = ("hydra.run", "hydra.sweep", "hydra.output_subdir", "hydra.job.chdir")
OUR_FOLDERS = "a run is in OUTPUT/TASK/METHOD/RUN_ID, whatever Hydra's folders are; set output=DIR"
SEARCH_GROUP = "hparams_search"
AS_IT_IS = ("hydra/launcher=basic", "hydra/sweeper=basic", "hydra.job.chdir=false")


def is_hydra_setting(override: str) -> bool:
    """Return whether `override` is a setting of Hydra itself."""
    key = override_key(override)
    return key.startswith(("hydra.", "hydra/")) or key == "hydra"


def is_search_setting(override: str) -> bool:
    """Return whether `override` concerns the sweeper rather than its trials."""
    return _is_below(override_key(override), (*SWEEPER, SWEEP_DIR))


def is_search(overrides: Sequence[str]) -> bool:
    """Return whether `overrides` select a sweeper plugin: with -m, a search instead of a grid."""
    values = {override_key(o): o.partition("=")[2] for o in overrides if not o.startswith("~")}
    sweeper, group = values.get("hydra/sweeper", "basic"), values.get(SEARCH_GROUP, "null")
    return sweeper != "basic" or group != "null"


def check_hydra_settings(overrides: Sequence[str], *, is_grid: bool) -> None:
    """Raise `UserError` for a setting of Hydra that has no effect here."""
    searches = is_search(overrides)
    for override in overrides:
        key = override_key(override)
        if override in AS_IT_IS or key == SEARCH_PATH:
            continue
        if key == SEARCH_GROUP or is_hydra_setting(override):
            _refuse_several(override)
        if key == SEARCH_GROUP and not is_grid:
            raise UserError(f"{override} is a search of many runs; add -m")
        if is_search_setting(override):
            _check_search_setting(override, is_grid=is_grid, is_search=searches)
        elif is_hydra_setting(override):
            _check_setting(override, is_grid=is_grid)


def _refuse_several(override: str) -> None:
    """Refuse a=x,y for a key that all runs of a grid share."""
    value = override.partition("=")[2]
    if "," in value and not set("[{(\"'") & set(value):
        key = placed_key(override)
        raise UserError(f"{override}: all runs share one {key}; give one value")


def _check_setting(override: str, *, is_grid: bool) -> None:
    key = override_key(override)
    if _is_below(key, LAUNCHER):
        if not is_grid:
            raise UserError(f"{override}: launchers run grids; add -m")
    elif _is_below(key, OF_GRIDS):
        if not is_grid:
            raise UserError(f"{override} has an effect in grids only; add -m, or leave it out")
    elif _is_below(key, FOLDERS):
        raise UserError(f"{override} has no effect: {OUR_FOLDERS}")
    else:
        names = (*LAUNCHER, *SWEEPER, SEARCH_PATH, *OF_GRIDS)
        allowed = ", ".join(name for name in names if "." in name)
        raise UserError(f"{override} has no effect. Hydra settings with an effect: {allowed}")


def _check_search_setting(override: str, *, is_grid: bool, is_search: bool) -> None:
    if override_key(override) == SWEEP_DIR and not (is_grid and is_search):
        raise UserError(
            f"{override} has an effect in searches only (hydra/sweeper=): {OUR_FOLDERS}"
        )
    if not is_grid:
        raise UserError(f"{override}: sweepers search among many runs; add -m")
    if not is_search:
        raise UserError(f"{override}: needs a sweeper, such as hydra/sweeper=optuna")


def placed_key(override: str) -> str:
    """Return the key of `override` with its package, which may be a slot: form@ffn."""
    return override.lstrip("+~").partition("=")[0]


def override_key(override: str) -> str:
    """Return the key of `override`, without its sign and its package."""
    return placed_key(override).partition("@")[0]


def _is_below(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in names)
