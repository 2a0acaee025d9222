"""Fold the active deltas into a copy of the model."""

from torch import nn

from unipeft_run.backbones.wrapped import refuse_wrapper
from unipeft_run.deltas import fold as core
from unipeft_run.library.store import ATTRIBUTE


def fold(model: nn.Module) -> nn.Module:
    """Return a copy of `model` for inference with its active deltas folded in, where that is exact.

    The copy has no named deltas. A prefix stays at its attention heads, without its MLP. Raises
    UserError if any other delta cannot be folded, and for a wrapper of a model.
    """
    refuse_wrapper(model)
    store = vars(model).pop(ATTRIBUTE, None)  # inactive deltas are not copied
    try:
        return core.fold(model)
    finally:
        if store is not None:
            setattr(model, ATTRIBUTE, store)
