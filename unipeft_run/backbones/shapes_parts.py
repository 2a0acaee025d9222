"""The names and shapes of modules that several families share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]


def linear(name: str, out: int, into: int, bias: bool = True) -> Named:
    """Yield the parameters of a Linear."""
    yield f"{name}.weight", (out, into)
    if bias:
        yield f"{name}.bias", (out,)


def linears(top: str, names: Sequence[str], out: int, into: int, bias: bool = True) -> Named:
    """Yield the parameters of several Linears of one size below `top`."""
    for name in names:
        yield from linear(f"{top}.{name}", out, into, bias)


def norm(name: str, width: int) -> Named:
    """Yield the parameters of a LayerNorm."""
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


@dataclass(frozen=True)
class Layer:
    """The modules of an encoder's layer: projections of the attention, the FFN, LayerNorms."""

    inputs: tuple[str, str, str]
    output: str
    up: str
    down: str
    norms: tuple[str, str]


def encoder_layers(config: Any, top: str, modules: Layer, *, input_bias: bool = True) -> Named:
    """Yield the parameters of an encoder's layers below `top`.

    `input_bias`: whether queries, keys and values have biases.
    """
    width, wide = config.hidden_size, config.intermediate_size
    for i in range(config.num_hidden_layers):
        layer = f"{top}.{i}"
        yield from linears(layer, modules.inputs, width, width, input_bias)
        yield from linear(f"{layer}.{modules.output}", width, width)
        yield from linear(f"{layer}.{modules.up}", wide, width)
        yield from linear(f"{layer}.{modules.down}", width, wide)
        for name in modules.norms:
            yield from norm(f"{layer}.{name}", width)
