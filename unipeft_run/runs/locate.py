"""Find the folder of a run by its path or its run id. Imports nothing heavy."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from unipeft_run.errors import UserError
from unipeft_run.runs.printable import printable
from unipeft_run.runs.search import search

OUTPUTS = Path("outputs")
MOST_NAMED = 8  # runs that an error message lists


def find_run_folder(name: Path | str, outputs: Path = OUTPUTS) -> Path:
    """Return the run folder at the path `name`, or of the run in `outputs` with that run id.

    The beginning of a run id is enough if no other run shares it; `task/method/run_id` works, too.
    Raises UserError if there is none, or more than one.
    """
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return path
    folders = [found.path for found in search([outputs])] if outputs.is_dir() else []
    wanted = str(name).strip("/")
    matching = [folder for folder in folders if _matches(folder, wanted)]
    exact = [folder for folder in matching if folder.name == wanted.rpartition("/")[2]]
    if len(found := exact or matching) == 1:
        return found[0]
    if found:
        raise UserError(f"{printable(name)} could be any of {_list(found)}; give more digits")
    raise UserError(_explain_none(str(name), outputs, folders))


def _matches(folder: Path, wanted: str) -> bool:
    """Return whether the path of `folder` ends in `wanted`, whose last part may be a prefix."""
    parents, _, start = wanted.rpartition("/")
    if not start or not folder.name.startswith(start):
        return False
    return not parents or f"/{folder.parent.as_posix()}".endswith(f"/{parents}")


def _explain_none(name: str, outputs: Path, folders: list[Path]) -> str:
    problem = f"there is no run folder {printable(name)}, and no run with that id in {outputs}"
    near = get_close_matches(Path(name).name, [folder.name for folder in folders], n=1, cutoff=0.5)
    if near:
        twin = next(folder for folder in folders if folder.name == near[0])
        return f"{problem}; did you mean {printable(twin)}?"
    return f"{problem}; it holds {_list(folders)}" if folders else f"{problem}, which holds no runs"


def _list(folders: list[Path]) -> str:
    named = ", ".join(printable(folder) for folder in folders[:MOST_NAMED])
    return named + (f" and {len(folders) - MOST_NAMED} more" if len(folders) > MOST_NAMED else "")
