"""Resolvers for values derived from the run's data: a recipe by its size, and the class names.

`${by_size:{500: 200, 5000: 400, inf: 600}}` in YAML is 200 for up to 500 training examples, 400 for
up to 5,000 and 600 for more. `${class_names:}` lists the distinct labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from unipeft_run.errors import UserError


def register_resolvers() -> None:
    """Register by_size and class_names with OmegaConf, unless it has them: Hydra may reset it."""
    for name, resolver in (("by_size", _by_size), ("class_names", _class_names)):
        if not OmegaConf.has_resolver(name):
            OmegaConf.register_new_resolver(name, resolver)


def _by_size(values: Mapping[float, Any], *, _root_: DictConfig) -> Any:
    if not isinstance(values, Mapping) or not all(isinstance(n, int | float) for n in values):
        raise UserError(f"by_size: {values} must map numbers of examples to values")
    examples = _summarise(_root_).examples["train"]
    limit = OmegaConf.select(_root_, "limit.train")
    if isinstance(limit, int):
        examples = min(examples, limit)
    for bound in sorted(values):
        if examples <= bound:
            return values[bound]
    raise UserError(f"by_size: {values} has no value for {examples:,} examples; end it with inf")


def _class_names(*, _root_: DictConfig) -> ListConfig:
    task = _build(_root_)
    if not hasattr(task, "class_names"):
        raise UserError(f"class_names needs a task with classes of its data, unlike {task.name}")
    return ListConfig(list(task.class_names()))


def _summarise(root: DictConfig) -> Any:
    """Summarise the training data of a configuration that is not resolved yet."""
    from unipeft_run.data.tasks.own_data import OwnData

    task = _build(root)
    if not isinstance(task, OwnData):
        raise UserError(f"by_size needs a task on your own data, which {task.name} is not")
    return task.summarise()


def _build(root: DictConfig) -> Any:
    """Build the task of a configuration that is not resolved yet."""
    from unipeft_run.config.resolve import with_absolute_paths
    from unipeft_run.config.schema import TaskConfig
    from unipeft_run.config.validation import check, check_task
    from unipeft_run.data.tasks.build import build_task

    section = OmegaConf.to_container(root.task)
    assert isinstance(section, dict)
    given = {key: value for key, value in section.items() if "${" not in str(value)}
    config = check(TaskConfig, with_absolute_paths({"task": given})["task"], "task")
    return build_task(check_task(config))
