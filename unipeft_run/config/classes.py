"""Import and construct the classes that a configuration names; one message if that fails."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from unipeft_run.config.contents import class_targets
from unipeft_run.config.declarations import is_ours
from unipeft_run.config.schema import RunConfig
from unipeft_run.errors import UserError
from unipeft_run.extensions import make_importable
from unipeft_run.user_code import describe_problem

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


def import_user_classes(config: RunConfig) -> None:
    """Import the classes outside this package that `config` names. Raises UserError."""
    for key, target in class_targets(config).items():
        if not is_ours(target):
            import_class(key, target)


def _path_hint(problem: Exception, module: str) -> str:
    """Return a hint where Python looks for `module`, if it was not found; else nothing."""
    missing = isinstance(problem, ModuleNotFoundError) and problem.name
    if not missing or not f"{module}.".startswith(f"{missing}."):
        return ""
    return "\nIts package must be in the current folder, on PYTHONPATH, or be --config-dir itself"
