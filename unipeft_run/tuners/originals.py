"""Keep the weights of the backbone that a method of the PEFT library changes, and restore them.

PiSSA and OLoRA take the initial product of A and B out of the weight itself, LoftQ rounds it, and
`bias` trains biases of the backbone. The library leaves them so when its modules are taken out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unipeft_run.errors import UserError
from unipeft_run.tuners.targets import find_targets

REWRITING = ("pissa", "olora", "loftq")  # values of init_lora_weights
RANDOM_SVD = "pissa_niter_"  # ... with a randomised decomposition


def copy_rewritten(model: nn.Module, config: Any) -> dict[str, Tensor]:
    """Return copies, by name, of the weights that initialising the method may change.

    `config`: the library's configuration, before its modules are in the model.
    """
    if not _init_of(config).startswith(REWRITING):
        return {}
    everywhere = (path for path, _ in model.named_modules())
    paths = everywhere if config.target_modules is None else find_targets(model, config)
    weights = {path: getattr(model.get_submodule(path), "weight", None) for path in paths}
    return {f"{path}.weight": _copy(w) for path, w in weights.items() if isinstance(w, Tensor)}


def copy_trained(
    parameters: Mapping[str, nn.Parameter], ours: Collection[str]
) -> dict[str, Tensor]:
    """Return copies of the `parameters` that the library trains, except `ours`, by name."""
    return {n: _copy(p) for n, p in parameters.items() if p.requires_grad and n not in ours}


@torch.no_grad()
def restore(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write `values` into the parameters of that name, which are frozen again."""
    for name, value in values.items():
        parameter = model.get_parameter(name)
        parameter.copy_(value)
        parameter.requires_grad_(False)


@contextmanager
def undone_on_error(model: nn.Module, rewritten: Mapping[str, Tensor]) -> Iterator[None]:
    """Undo what the library did to `model` if an error is raised inside this context.

    Its modules, parameters and attributes are put back, and the values `rewritten`.
    """
    attributes = set(vars(model))
    trains = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    held = [(m, dict(m._modules), dict(m._parameters)) for m in model.modules()]
    try:
        yield
    except BaseException:
        for module, modules, parameters in held:
            module._modules.clear()
            module._modules.update(modules)
            module._parameters.clear()
            module._parameters.update(parameters)
        for name in set(vars(model)) - attributes:
            delattr(model, name)
        restore(model, rewritten)
        for parameter, required in trains:
            parameter.requires_grad_(required)
        raise


@contextmanager
def repeatable(model: nn.Module, config: Any) -> Iterator[None]:
    """Draw the numbers of a randomised decomposition from a fixed seed inside this context.

    The weight without the decomposed part is not stored: it is computed again when a delta is
    loaded. Raises UserError for a model on a GPU, which draws other numbers.
    """
    init = _init_of(config)
    if not init.startswith(RANDOM_SVD):
        yield
        return
    for parameter in model.parameters():
        if parameter.device.type not in ("cpu", "meta"):
            raise UserError(
                f"peft.config.init_lora_weights={init} draws other random numbers on a GPU; "
                "attach on the CPU, and then move the model, or use init_lora_weights=pissa"
            )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def draws_decomposition(config: Any) -> bool:
    """Return whether the library's `config` decomposes the weights with random numbers."""
    return _init_of(config).startswith(RANDOM_SVD)


def _init_of(config: Any) -> str:
    return str(getattr(config, "init_lora_weights", None))


def _copy(tensor: Tensor) -> Tensor:
    """Copy to the CPU's memory; a tensor without memory stays so."""
    tensor = tensor.detach()
    return tensor.clone() if tensor.is_meta else tensor.to("cpu", copy=True)
