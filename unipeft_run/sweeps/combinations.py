"""Count the combinations of a search space, so that a search of finite lists can end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from unipeft_run.sweeps.hydra_settings import placed_key


def count_combinations(
    sweeper: Mapping[str, Any], fixed: Sequence[str], searched: Sequence[str]
) -> int | None:
    """Return how many combinations of listed values there are; None if a key has a range.

    `sweeper`: the configuration hydra.sweeper, whose `params` are ranges too. `searched`: the
    ranges of the command line, which take precedence. `fixed`: the values that all trials share.
    """
    if sweeper.get("custom_search_space") is not None:
        return None
    words = [*(f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()), *searched]
    ranges = {placed_key(word): word for word in words}
    for word in fixed:
        ranges.pop(placed_key(word), None)
    parsed = OverridesParser.create().parse_overrides(list(ranges.values()))
    swept = [override for override in parsed if override.is_sweep_override()]
    if not all(override.is_choice_sweep() for override in swept):
        return None
    return prod(len(set(override.sweep_string_iterator())) for override in swept)
