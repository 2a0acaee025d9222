"""unipeft: parameter-efficient fine-tuning methods as points in one design space.

`import unipeft` is the public library (docs/library.md). The functions here are one level below:
they work on the slots of a configuration and know no named deltas.

The public names are imported on first use, so that the command line can print its help without
importing torch.
"""

from importlib import import_module
from typing import Any

_MODULES = {  # public name -> the module that defines it
    "attach": "deltas.attach",
    "detach": "deltas.attach",
    "fold": "deltas.fold",
    "generate": "evaluation.generation",
    "load_backbone": "backbones.load",
    "load_run": "inference.loaded_run",
}
__all__ = ["attach", "detach", "fold", "generate", "load_backbone", "load_run"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
