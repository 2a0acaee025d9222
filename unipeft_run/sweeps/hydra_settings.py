"""Check Hydra's own settings on a command line, and refuse those without effect."""

from __future__ import annotations

from collections.abc import Sequence

from unipeft_run.errors import UserError

LAUNCHER = ("hydra/launcher", "hydra.launcher")
ANYWHERE = (
    "hydra.searchpath",
    "hydra.verbose",
    "hydra.callbacks",
    "hydra/callbacks",
    "hydra.job_logging",
    "hydra/job_logging",
    "hydra.hydra_logging",
    "hydra/hydra_logging",
)
FOLDERS = ("hydra.run", "hydra.sweep", "hydra.output_subdir", "hydra.job.chdir")


def is_hydra_setting(override: str) -> bool:
    """Return whether `override` is a setting of Hydra itself."""
    return _key(override).startswith(("hydra.", "hydra/")) or _key(override) == "hydra"


def check_hydra_settings(overrides: Sequence[str], *, is_grid: bool) -> None:
    """Raise `UserError` for a setting of Hydra that has no effect here."""
    for override in filter(is_hydra_setting, overrides):
        key = _key(override)
        if _is_below(key, ANYWHERE) or override in ("hydra/sweeper=basic", "hydra/launcher=basic"):
            continue
        if _is_below(key, LAUNCHER):
            if not is_grid:
                raise UserError(f"{override}: launchers run grids; add -m")
        elif _is_below(key, FOLDERS):
            raise UserError(
                f"{override}: has no effect. A run is in OUTPUT/TASK/METHOD/RUN_ID, whatever "
                "Hydra's folders are; set output=DIR"
            )
        elif _is_below(key, ("hydra/sweeper", "hydra.sweeper")):
            raise UserError(f"{override}: other sweepers are not supported; -m runs the whole grid")
        else:
            allowed = ", ".join(name for name in (*LAUNCHER, *ANYWHERE) if "." in name)
            raise UserError(f"{override}: has no effect. Hydra settings with an effect: {allowed}")


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def _is_below(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in names)
