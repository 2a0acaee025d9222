"""Build the task that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from unipeft_run.config.schema import TaskConfig
from unipeft_run.errors import UserError

if TYPE_CHECKING:
    from unipeft_run.data.tasks.base import Task


def build_task(config: TaskConfig, limit: Mapping[str, int | None] | None = None) -> Task:
    """Import and construct the task. Raises UserError for an unknown class or key."""
    module, _, name = config.target.rpartition(".")
    try:
        cls: Any = getattr(import_module(module), name)
    except Exception as problem:  # importing may run the user's code
        reason = f"{type(problem).__name__}: {problem}".partition("\n")[0]
        raise UserError(f"task._target_={config.target} cannot be imported: {reason}") from problem
    try:
        return cls(**config.keywords, limit=dict(limit or {}))  # type: ignore[no-any-return]
    except TypeError as problem:  # a key that was added with +
        raise UserError(f"task {config.name}: {problem}") from None
