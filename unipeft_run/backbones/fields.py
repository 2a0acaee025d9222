"""Rules for the fields of a model's configuration: what each may hold.

A family's table lists the fields that config.json and `backbone.config` may set. The list is
closed: options that choose code, files or number formats (`trust_remote_code`, `auto_map`,
`attn_implementation`, `quantization_config`, `torch_dtype`, ...) are not on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "tanh")


@dataclass(frozen=True)
class Rule:
    """What a field may hold, in words and as a predicate."""

    description: str
    is_valid: Callable[[Any], bool]

    def or_null(self) -> Rule:
        """This rule, with null allowed."""
        return Rule(f"{self.description}, or null", lambda v: v is None or self.is_valid(v))


def whole(low: int, high: int) -> Rule:
    """Whole numbers from `low` to `high`."""
    return Rule(
        f"a whole number from {low:,} to {high:,}", lambda v: type(v) is int and low <= v <= high
    )


def number(description: str, is_valid: Callable[[float], bool]) -> Rule:
    """Finite numbers for which `is_valid` holds."""
    return Rule(description, lambda v: type(v) in (int, float) and math.isfinite(v) and is_valid(v))


LAYERS = HEADS = whole(1, 1_000)
WIDTH = whole(1, 1_000_000)
ROWS = whole(1, 10_000_000)  # of an embedding
TOKEN = whole(0, 10_000_000)
SHARE = number("a number from 0 to below 1", lambda v: 0 <= v < 1)
DEVIATION = number("a number of 0 or more", lambda v: v >= 0)
EPSILON = number("a number above 0", lambda v: v > 0)
FLAG = Rule("true or false", lambda v: isinstance(v, bool))
ACTIVATION = Rule(f"one of {', '.join(ACTIVATIONS)}", lambda v: v in ACTIVATIONS)
