"""unipeft: parameter-efficient fine-tuning methods as points in one design space.

    import unipeft

    attached = unipeft.attach(model, "mam", bottleneck=8)
    print(attached)
    unipeft.save(model, "my_delta")

docs/library.md describes every function. The modules that define them are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unipeft_run.backbones.load import load_backbone as load_backbone
    from unipeft_run.errors import UserError as UserError
    from unipeft_run.evaluation.generation import generate as generate
    from unipeft_run.inference.loaded_run import load_run as load_run
    from unipeft_run.library.attach import attach as attach
    from unipeft_run.library.files import load as load
    from unipeft_run.library.files import save as save
    from unipeft_run.library.fold import fold as fold
    from unipeft_run.library.schedule import rank_schedule as rank_schedule
    from unipeft_run.library.summary import Attached as Attached
    from unipeft_run.library.summary import attached as attached
    from unipeft_run.library.switch import activate as activate
    from unipeft_run.library.switch import active as active
    from unipeft_run.library.switch import detach as detach
    from unipeft_run.library.switch import disabled as disabled

_MODULES = {  # public name -> the module that defines it
    "Attached": "library.summary",
    "UserError": "errors",
    "activate": "library.switch",
    "active": "library.switch",
    "attach": "library.attach",
    "attached": "library.summary",
    "detach": "library.switch",
    "disabled": "library.switch",
    "fold": "library.fold",
    "generate": "evaluation.generation",
    "load": "library.files",
    "load_backbone": "backbones.load",
    "load_run": "inference.loaded_run",
    "rank_schedule": "library.schedule",
    "save": "library.files",
}
__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("unipeft")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"unipeft_run.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
