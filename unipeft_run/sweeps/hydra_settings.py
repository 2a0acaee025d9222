"""Which of Hydra's own settings a command line may hold; the others would be ignored."""

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


def is_hydra_setting(word: str) -> bool:
    """Whether the override `word` is Hydra's own."""
    return _key(word).startswith(("hydra.", "hydra/")) or _key(word) == "hydra"


def check_hydra_settings(words: Sequence[str], *, is_grid: bool) -> None:
    """Raise `UserError` for a setting of Hydra that has no effect here."""
    for word in filter(is_hydra_setting, words):
        key = _key(word)
        if _is_below(key, ANYWHERE) or word in ("hydra/sweeper=basic", "hydra/launcher=basic"):
            continue
        if _is_below(key, LAUNCHER):
            if not is_grid:
                raise UserError(f"{word}: launchers run grids; add -m")
        elif _is_below(key, FOLDERS):
            raise UserError(
                f"{word}: has no effect. A run is in OUTPUT/TASK/METHOD/RUN_ID, whatever Hydra's "
                "folders are; set output=DIR"
            )
        elif _is_below(key, ("hydra/sweeper", "hydra.sweeper")):
            raise UserError(f"{word}: other sweepers are not supported; -m runs the whole grid")
        else:
            allowed = ", ".join(name for name in (*LAUNCHER, *ANYWHERE) if "." in name)
            raise UserError(f"{word}: has no effect. Of Hydra's settings, these have: {allowed}")


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition("@")[0]


def _is_below(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in names)
