"""Import and construct the classes that a configuration names; one message if that fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from unipeft_run.config.declarations import PACKAGE, is_ours
from unipeft_run.errors import UserError
from unipeft_run.extensions import make_importable

T = TypeVar("T")


def import_class(key: str, target: str) -> Any:
    """Import the class that `key` names. Raises UserError with the file and the error."""
    module, _, name = target.rpartition(".")
    make_importable(target)
    try:
        return getattr(import_module(module), name)
    except Exception as problem:  # importing may run the user's code
        raise UserError(
            f"{key}._target_={target} cannot be imported: {describe_problem(problem)}"
            + _path_hint(problem, module)
        ) from problem


def construct(key: str, target: str, build: Callable[[], T]) -> T:
    """Call `build`, which constructs the class that `key` names.

    Raises UserError with the file and the error, whatever the constructor raises.
    """
    try:
        return build()
    except UserError:
        raise
    except Exception as problem:  # constructing may run the user's code
        if is_ours(target) and not isinstance(problem, TypeError):
            raise  # our fault
        raise UserError(
            f"{key}: {target} cannot be built: {describe_problem(problem)}"
        ) from problem


def describe_problem(problem: Exception) -> str:
    """Describe an exception in one line, with the file and line outside this package."""
    text = f"{type(problem).__name__}: {problem}".partition("\n")[0]
    if isinstance(problem, SyntaxError):  # its text names the file and the line
        return text
    frames = traceback.extract_tb(problem.__traceback__)
    foreign = [frame for frame in frames if _is_foreign(frame.filename)]
    where = f" ({foreign[-1].filename}, line {foreign[-1].lineno})" if foreign else ""
    return text + where


def _is_foreign(filename: str) -> bool:
    """Return whether a file is the user's: neither ours, installed, nor the interpreter's."""
    path = Path(filename)
    if filename.startswith("<") or path.is_relative_to(PACKAGE):
        return False
    return not {"site-packages", "importlib"} & set(path.parts)


def _path_hint(problem: Exception, module: str) -> str:
    """Return a hint where Python looks for `module`, if it was not found; else nothing."""
    missing = isinstance(problem, ModuleNotFoundError) and problem.name
    if not missing or not f"{module}.".startswith(f"{missing}."):
        return ""
    return "\nIts package must be in the current folder, on PYTHONPATH, or be --config-dir itself"
