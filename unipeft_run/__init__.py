"""unipeft: every parameter-efficient method as a point in one design space.

The public names are imported at first use: the command line must not pay for torch to say "help".
"""

from importlib import import_module
from typing import Any

__all__ = ["attach", "detach", "load_backbone"]

_HOMES = {"attach": "attach", "detach": "attach", "load_backbone": "backbones.load"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
