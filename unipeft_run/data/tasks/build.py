"""Build the task that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unipeft_run.config.classes import construct, import_class
from unipeft_run.config.schema import TaskConfig

if TYPE_CHECKING:
    from unipeft_run.data.tasks.base import Task


def build_task(config: TaskConfig, limit: Mapping[str, int | None] | None = None) -> Task:
    """Import and construct the task. Raises UserError for an unknown class or key."""
    cls: Any = import_class("task", config.target)
    return construct("task", config.target, lambda: cls(**config.keywords, limit=dict(limit or {})))
