"""Describe the backbone that a delta was trained on, and check that a model is that backbone.

A delta fits every model of the same shapes, but is meaningless on other weights. A few weights are
recorded with it, so that another checkpoint of the same architecture is detected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from unipeft_run.backbones.families import family_of, head_patterns
from unipeft_run.config.messages import shorten
from unipeft_run.deltas.attach import PREFIX
from unipeft_run.errors import UserError
from unipeft_run.tuners.adapter import find_adapter

MATRICES, VALUES = 16, 4  # recorded: frozen matrices, and weights of each
SIZES = ("hidden_size", "num_hidden_layers", "vocab_size")


def describe_backbone(
    model: Any, unfrozen: Sequence[str], plain: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Return the family, name, class, sizes and some frozen weights of the model's backbone.

    `plain`: values of weights that active deltas changed.
    """
    config = model.config
    parameters = {**dict(plain_parameters(model)), **(plain or {})}
    matrices = _frozen_matrices(parameters, set(unfrozen))
    return {
        "family": family_of(config).name,
        "name": config.name_or_path,
        "class": type(model).__name__,
        "sizes": {key: getattr(config, key) for key in SIZES if hasattr(config, key)},
        "dtype": str(next(iter(parameters.values())).dtype).removeprefix("torch."),
        "fingerprint": {name: _sample(weight).tolist() for name, weight in matrices},
    }


def plain_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the backbone's parameters by their names without deltas.

    Weights that a method of the PEFT library rewrote have the values from before.
    """
    if adapter := find_adapter(model):
        yield from adapter.backbone_parameters()
        return
    for name, parameter in model.named_parameters():
        if f".{PREFIX}" not in name:
            yield name, parameter


def check_family(model: Any, recorded: Mapping[str, Any], folder: object) -> None:
    """Raise UserError if the model has another family or size than `describe_backbone` recorded."""
    family, known = family_of(model.config).name, recorded.get("family")
    if family != known:
        raise UserError(f"{folder} holds a delta for {shorten(known)}, but this model is {family}")
    sizes = recorded.get("sizes")
    for key, value in sizes.items() if isinstance(sizes, dict) else ():
        if key in SIZES and getattr(model.config, key, None) != value:
            raise UserError(
                f"{folder} holds a delta for {_name(recorded)} with {key}={shorten(value)}, "
                f"but this model has {key}={getattr(model.config, key, None)}"
            )


def check_weights(model: Any, recorded: Mapping[str, Any], folder: object) -> None:
    """Raise UserError if the model has other weights than `describe_backbone` recorded.

    Nothing is checked if nothing was recorded, as in runs of earlier versions.
    """
    weights = recorded.get("fingerprint")
    for name, values in weights.items() if isinstance(weights, dict) else ():
        _check_weight(model, name, values, recorded, folder)


def _check_weight(
    model: nn.Module, name: str, values: Any, recorded: Mapping[str, Any], folder: object
) -> None:
    try:
        own = _sample(model.get_parameter(name))
        expected = torch.tensor(values, dtype=torch.float64)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        raise UserError(f"{folder} does not fit this model: it has no {shorten(name)}") from None
    eps = max(_eps(recorded.get("dtype")), torch.finfo(model.get_parameter(name).dtype).eps)
    if own.shape != expected.shape or not torch.allclose(own, expected, rtol=2 * eps, atol=eps**2):
        head = any(fnmatchcase(name, pattern) for pattern in head_patterns(model))
        advice = (
            "its head was frozen and belongs to it; attach with head='trained' to store the head"
            if head
            else "load those weights first"
        )
        raise UserError(
            f"{folder} holds a delta for other weights, {_name(recorded)}: {name} differs; {advice}"
        )


def _name(recorded: Mapping[str, Any]) -> str:
    return shorten(recorded.get("name") or recorded.get("class") or recorded.get("family"))


def _eps(dtype: Any) -> float:
    known = getattr(torch, str(dtype), None)
    return torch.finfo(known).eps if isinstance(known, torch.dtype) else 0.0


def _frozen_matrices(
    parameters: Mapping[str, Tensor], unfrozen: set[str]
) -> Iterator[tuple[str, Tensor]]:
    """Yield up to MATRICES frozen matrices of the backbone, evenly spaced, the last included."""
    frozen = [(n, p) for n, p in parameters.items() if p.ndim > 1 and n not in unfrozen]
    last = len(frozen) - 1
    count = min(MATRICES, len(frozen))
    yield from (frozen[round(i * last / max(1, count - 1))] for i in range(count))


def _sample(weight: Tensor) -> Tensor:
    """Return VALUES evenly spaced weights, in float64 on the CPU."""
    flat = weight.detach().flatten()
    places = torch.arange(1, VALUES + 1) * (len(flat) - 1) // (VALUES + 1)
    return flat[places.to(flat.device)].double().cpu()
