"""The allowed values of options that several formats share, and the check of a mapping of rules."""

import math
from collections.abc import Mapping
from typing import Any

from unipeft_run.backbones.fields import Rule, whole
from unipeft_run.config.messages import shorten

SIZE = whole(1, 1_000_000)
TEXT = Rule("text", lambda value: isinstance(value, str))
SEED = Rule("a whole number", lambda value: type(value) is int).or_null()


def is_names(value: Any) -> bool:
    """Return whether `value` is a list, a tuple or a set of words."""
    return isinstance(value, list | tuple | set) and all(isinstance(name, str) for name in value)


NAMES = Rule("a list of names", is_names)
TARGETS = Rule(
    "a list of names, or a regular expression", lambda v: isinstance(v, str) or is_names(v)
).or_null()


def check_values(options: Mapping[str, Any], rules: Mapping[str, Rule], source: str = "") -> None:
    """Raise ValueError for the first option that breaks its rule; `source` precedes its name."""
    for key, rule in rules.items():
        if not rule.is_valid(options[key]):
            value = shorten(options[key])
            raise ValueError(f"{source}{key}={value}: must be {rule.description}")


def check_scaling(scaling: Any) -> None:
    """Raise ValueError for a scale of an adapter that is neither a finite float nor `learned`."""
    is_scale = isinstance(scaling, float) and math.isfinite(scaling)
    if not is_scale and scaling != "learned":
        raise ValueError(f"scaling={scaling!r} is not supported: a float, or learned")
