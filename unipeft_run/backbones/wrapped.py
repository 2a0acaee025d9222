"""Refuse wrappers of models: the deltas belong to the model inside."""

from typing import Any

from torch import nn

from unipeft_run.errors import UserError

INSIDE = ("module", "_orig_mod")  # of DataParallel, DDP, FSDP and DeepSpeed; of torch.compile


def refuse_wrapper(model: Any) -> None:
    """Raise UserError for a wrapper of a model, such as DDP, and for a loaded run."""
    children = model._modules if isinstance(model, nn.Module) else vars(model)
    names = INSIDE if isinstance(model, nn.Module) else ("model",)
    for name in names:
        if isinstance(children.get(name), nn.Module):
            raise UserError(
                f"{type(model).__name__} wraps the model: pass the model itself, not its wrapper"
            )
