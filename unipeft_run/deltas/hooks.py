"""Hooks whose handles are kept in the module: they are removed, copied and pickled with it."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

HANDLES = "_unipeft_hooks"


def add_hook(module: nn.Module, hook: Any) -> None:
    """Register a forward hook: after our earlier ones, and before all others.

    Hooks that look at the output, such as those of `output_hidden_states`, then see the deltas,
    even if they were registered first.
    """
    handles = _keep(module, module.register_forward_hook(hook))
    ours, hooks = {handle.id for handle in handles}, module._forward_hooks
    for key in [key for key in hooks if key not in ours]:
        hooks[key] = hooks.pop(key)


def add_pre_hook(module: nn.Module, hook: Any, *, with_kwargs: bool = False) -> None:
    """Register a forward pre-hook."""
    _keep(module, module.register_forward_pre_hook(hook, with_kwargs=with_kwargs))


def remove_hooks(module: nn.Module) -> None:
    """Remove the hooks that this file's functions added to `module`."""
    for handle in vars(module).pop(HANDLES, ()):
        handle.remove()


def _keep(module: nn.Module, handle: RemovableHandle) -> list[RemovableHandle]:
    """Keep a handle in the module, and return all of them.

    A handle that is loaded in another process reserves its id there. Without it, the id of a new
    hook could be that of a loaded one, which it would replace.
    """
    handles: list[RemovableHandle] = vars(module).setdefault(HANDLES, [])
    handles.append(handle)
    return handles
