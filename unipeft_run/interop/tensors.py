"""Load a checkpoint's tensors into a model, each of them exactly once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from unipeft_run.backbones.weights import FLOAT_TYPES

ALL = slice(None)
UNUSED = ("position_ids", "inv_freq", "masked_bias", "attn.bias")  # buffers of older transformers


class RemainingTensors(dict[str, torch.Tensor]):
    """The tensors that are not loaded yet, by name. Raises ValueError for others."""

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self:
            raise ValueError(f"the checkpoint has no tensor {name}")
        return super().__getitem__(name)

    def pop(self, name: str, *_: Any) -> torch.Tensor:
        tensor = self[name]
        del self[name]
        return tensor


def fill(parameter: torch.Tensor, name: str, tensor: torch.Tensor, rows: slice = ALL) -> None:
    """Copy `rows` of `tensor`. Raises ValueError for another shape or an integer type."""
    part = tensor[rows] if tensor.ndim else tensor
    check_shape(name, part, parameter.shape)
    if parameter.dtype in FLOAT_TYPES:
        check_type(name, part)
    with torch.no_grad():
        parameter.copy_(part)


def check_shape(name: str, tensor: torch.Tensor, expected: Sequence[int]) -> None:
    """Raise ValueError for another shape than the one that is expected."""
    if list(tensor.shape) != list(expected):
        raise ValueError(
            f"the tensor {name} is {list(tensor.shape)}; "
            f"the options and the configuration make it {list(expected)}"
        )


def check_type(name: str, tensor: torch.Tensor) -> None:
    """Raise ValueError for a tensor that is not of a floating-point type."""
    if tensor.dtype not in FLOAT_TYPES:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(f"the tensor {name} is {kind}, not of a floating-point type")


def find_dtype(state: Mapping[str, torch.Tensor]) -> torch.dtype:
    """Return the type of the first floating-point tensor, by default float32."""
    kinds = (tensor.dtype for tensor in state.values() if tensor.dtype in FLOAT_TYPES)
    return next(kinds, torch.float32)


def cast(model: nn.Module, dtype: torch.dtype, fixed: Iterable[torch.Tensor]) -> None:
    """Convert the floating-point parameters and buffers of a model, except the buffers `fixed`.

    `fixed`: the backbone's buffers. transformers keeps some, such as rotary frequencies, in float32
    whatever the type of the model.
    """
    kept = {id(buffer) for buffer in fixed}
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point() and id(tensor) not in kept:
            tensor.data = tensor.data.to(dtype)


def load_backbone_tensors(model: nn.Module, remaining: RemainingTensors) -> None:
    """Load the backbone's tensors, and drop them from `remaining`.

    Parameters that the model ties may be given once, or several times. A parameter that the
    checkpoint does not tie (the head of T5 1.1) is untied. Raises ValueError for a missing one.
    """
    names_of: dict[int, list[str]] = {}
    wanted = model.state_dict(keep_vars=True)
    for name, tensor in wanted.items():
        names_of.setdefault(id(tensor), []).append(name)
    for names in names_of.values():
        given = [name for name in names if name in remaining]
        if not given:
            if isinstance(wanted[names[0]], nn.Parameter):
                raise ValueError(f"the checkpoint has no tensor {names[0]}")
            continue
        first = remaining.pop(given[0])
        fill(wanted[given[0]], given[0], first)
        for name in given[1:]:
            other = remaining.pop(name)
            if not torch.equal(other, first):
                _untie(model, name, other)
    for name in [name for name in remaining if name.endswith(UNUSED)]:
        del remaining[name]


def _untie(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    parameter = nn.Parameter(getattr(module, leaf).detach().clone())
    fill(parameter, name, tensor)
    setattr(module, leaf, parameter)
