"""Validation rules for the fields of a model's configuration.

A family's table lists the only fields that config.json and `backbone.config` may set. Options that
select code, files or data types (`trust_remote_code`, `auto_map`, `attn_implementation`,
`quantization_config`, `torch_dtype`, ...) are not among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

ACTIVATIONS = (
    *("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu"),
    *("relu", "silu", "tanh"),
)


@dataclass(frozen=True)
class Rule:
    """The allowed values of a field: a description for error messages, and a predicate."""

    description: str
    is_valid: Callable[[Any], bool]

    def or_null(self) -> Rule:
        """Return this rule with null allowed as well."""
        return Rule(f"{self.description}, or null", lambda v: v is None or self.is_valid(v))


def whole(low: int, high: int) -> Rule:
    """Allow whole numbers from `low` to `high`."""
    return Rule(
        f"a whole number from {low:,} to {high:,}", lambda v: type(v) is int and low <= v <= high
    )


def number(description: str, is_valid: Callable[[float], bool]) -> Rule:
    """Allow finite numbers for which `is_valid` is true."""
    return Rule(description, lambda v: type(v) in (int, float) and math.isfinite(v) and is_valid(v))


def one_of(*values: str) -> Rule:
    """Allow the given words."""
    return Rule(f"one of {', '.join(values)}", lambda v: isinstance(v, str) and v in values)


def _is_rope(value: Any) -> bool:
    """Accept a flat mapping of rotary parameters: numbers, words, and lists of numbers."""
    if not isinstance(value, Mapping) or len(value) > 20:
        return False
    numbers = [n for v in value.values() for n in (v if isinstance(v, list) else [v])]
    return all(isinstance(n, str | int | float | bool) or n is None for n in numbers)


LAYERS = HEADS = whole(1, 1_000)
WIDTH = whole(1, 1_000_000)
ROWS = whole(1, 10_000_000)  # rows of an embedding
TOKEN = whole(0, 10_000_000)
TOKENS = Rule(  # end tokens
    "a token id, or a list of them",
    lambda v: bool(v) and all(map(TOKEN.is_valid, v)) if isinstance(v, list) else TOKEN.is_valid(v),
)
NUMBER = number("a number", lambda v: True)
BASE = number("a number above 0", lambda v: v > 0)
ROPE = Rule("a mapping of rotary parameters", _is_rope)
PROBABILITY = number("a number from 0 to below 1", lambda v: 0 <= v < 1)
DEVIATION = number("a number of 0 or more", lambda v: v >= 0)
EPSILON = number("a number above 0", lambda v: v > 0)
FLAG = Rule("true or false", lambda v: isinstance(v, bool))
ACTIVATION = one_of(*ACTIVATIONS)
