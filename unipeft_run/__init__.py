"""unipeft: every parameter-efficient method as a point in one design space.

The public names are imported at first use: the command line must not pay for torch to say "help".
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["attach", "detach", "fold", "load_backbone"]

_HOMES = {"attach": "attach", "detach": "attach", "fold": "fold", "load_backbone": "backbones.load"}


class _Callable(ModuleType):
    """A module that can be called as the function whose name it has."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    """`attach` and `fold` are modules too, which importing them puts here: either can be called."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            value.__class__ = _Callable
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


sys.modules[__name__].__class__ = _Package
