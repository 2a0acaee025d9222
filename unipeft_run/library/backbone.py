"""Identify a user's model: its family, and the head of its task."""

from typing import Any

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.family import Family
from unipeft_run.errors import UserError


def check_model(model: Any) -> Family:
    """Return the family of a model. Raises UserError if deltas do not support the model."""
    refuse_compiled(model, "delta")
    config, kind = getattr(model, "config", None), type(model).__name__
    if config is None or not hasattr(config, "model_type"):
        raise UserError(f"{kind} is not a transformers model; attach before wrapping or compiling")
    if getattr(model, "is_quantized", False):
        raise UserError(f"{kind} is quantised; deltas need a backbone with floating-point weights")
    family = family_of(config)
    for key, value in family.fixed.items():
        if getattr(config, key, value) != value:
            raise UserError(f"{kind}: config.{key}={getattr(config, key)}: must be {value}")
    for stack in family.stacks.values():
        try:
            model.get_submodule(stack.path)
        except AttributeError:
            raise UserError(
                f"{kind} does not hold its layers at {stack.path}, where deltas are attached; "
                f"use a class that does, such as {family.model}"
            ) from None
    return family


def refuse_compiled(model: Any, change: str) -> None:
    """Raise UserError if the model is compiled, in place or by a wrapper."""
    compiled = getattr(model, "_compiled_call_impl", None) is not None
    if compiled or hasattr(model, "_orig_mod"):
        raise UserError(
            f"this model is compiled, and compiled code would ignore the {change}; "
            "attach and activate first, then compile"
        )
