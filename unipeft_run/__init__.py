"""unipeft: every parameter-efficient method as a point in one design space.

The public names are imported on first use, so that the command line can print its help without
importing torch.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "attach": "deltas.attach",
    "detach": "deltas.attach",
    "fold": "deltas.fold",
    "generate": "evaluation.generation",
    "load_backbone": "backbones.load",
    "load_run": "deltas.build",
}
__all__ = ["attach", "detach", "fold", "generate", "load_backbone", "load_run"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
