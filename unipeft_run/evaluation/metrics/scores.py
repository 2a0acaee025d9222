"""The result type that all metrics share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scores:
    """The scores of one set of predictions, in percent.

    `metrics`: corpus scores by metric. `per_example`: one score per prediction, in order.
    `signatures`: how each metric, and "per_example", was computed.
    """

    metrics: dict[str, float]
    per_example: list[float]
    signatures: dict[str, str]


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean. Raises `ValueError` if there are no values."""
    if not values:
        raise ValueError("no predictions to score")
    return sum(values) / len(values)
