"""What every metric gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scores:
    """`metrics` of the corpus, one number in `per_example` for each prediction, `signatures` by
    metric (and "per_example")."""

    metrics: dict[str, float]
    per_example: list[float]
    signatures: dict[str, str]


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; ValueError for none at all."""
    if not values:
        raise ValueError("no predictions to score")
    return sum(values) / len(values)
