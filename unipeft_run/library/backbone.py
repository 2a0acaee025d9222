"""Identify a user's model: its family, and the head of its task."""

from typing import Any

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.family import Family
from unipeft_run.errors import UserError


def check_model(model: Any) -> Family:
    """Return the family of a model. Raises UserError if deltas do not support the model."""
    config, kind = getattr(model, "config", None), type(model).__name__
    if config is None or not hasattr(config, "model_type"):
        raise UserError(f"{kind} is not a transformers model; attach before wrapping or compiling")
    family = family_of(config)
    for key, value in family.fixed.items():
        if getattr(config, key, value) != value:
            raise UserError(f"{kind}: config.{key}={getattr(config, key)}: must be {value}")
    for stack in family.stacks.values():
        try:
            model.get_submodule(stack.path)
        except AttributeError:
            raise UserError(
                f"{kind} has no {stack.path}; use a model with a head, such as {family.model}"
            ) from None
    return family


def head_patterns(model: Any) -> list[str]:
    """Return patterns of the parameters of a task's head: those outside the backbone.

    A language model's head belongs to the backbone: it is trained with it. So do the projections of
    a retrieval model.
    """
    family = family_of(model.config)
    if family.task_type == "retrieval":
        return []
    backbone = _backbone_modules(model, family)
    patterns = (_head_pattern(name, backbone) for name, _ in model.named_parameters())
    return list(dict.fromkeys(pattern for pattern in patterns if pattern))


def _backbone_modules(model: Any, family: Family) -> set[str]:
    """Return the names of the base model, or of its parts, and of the language model's head."""
    parts = [stack.path for stack in family.stacks.values()]
    parts += [model.base_model_prefix, _name_of(model, model.get_input_embeddings())]
    output = _name_of(model, model.get_output_embeddings())
    return {part.partition(".")[0] for part in parts} | {output.rpartition(".")[0] or output}


def _head_pattern(parameter: str, backbone: set[str]) -> str | None:
    """Return a pattern of the largest module that holds a parameter and nothing of the backbone."""
    parts = parameter.split(".")
    for end in range(1, len(parts)):
        module = ".".join(parts[:end])
        if module in backbone:
            return None
        if not any(name.startswith(f"{module}.") for name in backbone):
            return f"{module}.*"
    return parameter


def _name_of(model: Any, module: Any) -> str:
    """Return the name of a module in the model; empty if it is None."""
    return next((name for name, other in model.named_modules() if other is module), "")
