"""Keep a model on the attention implementations that apply its deltas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from unipeft_run.deltas.attention import IMPLEMENTATIONS, OWN
from unipeft_run.deltas.hooks import add_pre_hook
from unipeft_run.errors import UserError


def use_ours(model: Any) -> None:
    """Switch to our attention implementation, also before every later call of the model.

    `set_attn_implementation`, or another model with the same configuration object, may change it.
    Raises UserError for an implementation that cannot apply deltas.
    """
    _switch(model, IMPLEMENTATIONS)
    restore_ours(model)
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            add_pre_hook(module, restore_ours)


def use_theirs(model: Any) -> None:
    """Switch back to the implementation of transformers."""
    _switch(model, {ours: theirs for theirs, ours in IMPLEMENTATIONS.items()})


def restore_ours(module: Any, args: Any = ()) -> None:
    """Switch from an implementation to ours, before masks are made. A forward pre-hook of models.

    Raises UserError for an implementation that cannot apply deltas.
    """
    current = module.config._attn_implementation
    if current in IMPLEMENTATIONS:
        module.config._attn_implementation = IMPLEMENTATIONS[current]
    elif not _is_ours(current):
        raise UserError(
            "deltas at the attention heads, and prompts of an encoder-decoder model, cannot use "
            f"the attention implementation {current}; choose {' or '.join(IMPLEMENTATIONS)} with "
            "model.set_attn_implementation"
        )


def check_ours(module: Any, args: Any) -> None:
    """Refuse an implementation that would ignore the delta. A pre-hook of attention modules."""
    current = module.config._attn_implementation
    if not _is_ours(current):
        raise UserError(
            f"the attention implementation {current} would ignore the delta of this attention "
            "module: it was set during a forward or backward pass, or the module was called "
            "alone. Set it before calling the whole model; if another model shares this "
            "configuration object, give each model its own copy"
        )


def _is_ours(implementation: Any) -> bool:
    return isinstance(implementation, str) and implementation.startswith(OWN)


def _switch(model: Any, names: Mapping[str, str]) -> None:
    current = model.config._attn_implementation
    if current in names:
        model.set_attn_implementation(names[current])
