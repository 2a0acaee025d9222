"""Our modules override nothing of nn.Module that they do not mean to."""

import importlib
import pkgutil

from tiny import backbone
from torch import nn

import unipeft
import unipeft_run.deltas

MEANT = {"__init__", "forward", "extra_repr"}


def our_modules() -> set[type[nn.Module]]:
    for found in pkgutil.walk_packages(unipeft_run.deltas.__path__, "unipeft_run.deltas."):
        importlib.import_module(found.name)
    importlib.import_module("unipeft_run.library.combine")
    classes, waiting = set(), [nn.Module]
    while waiting:
        below = waiting.pop().__subclasses__()
        waiting += below
        classes |= {each for each in below if each.__module__.startswith("unipeft_run.")}
    return classes


def test_no_method_of_a_module_is_shadowed() -> None:
    inherited = {name for name in vars(nn.Module) if callable(getattr(nn.Module, name))}
    classes = our_modules()
    assert len(classes) > 20
    for each in classes:
        assert not {n for n in vars(each) if not n.startswith("__")} & inherited - MEANT, each


def test_apply_reaches_every_module_of_a_model_with_deltas() -> None:
    model = backbone("roberta")
    unipeft.attach(model, "mam", bottleneck=2)
    seen: list[nn.Module] = []
    model.apply(seen.append)
    assert set(seen) == set(model.modules())
