"""The result type that all metrics share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


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


def exact_mean(values: Sequence[Fraction]) -> Fraction:
    """Return the exact mean, so that equal scores are equal floats.

    With a mean of rounded terms, rounding could decide which evaluation is the best. Raises
    `ValueError` as `mean` does.
    """
    if not values:
        raise ValueError("no predictions to score")
    return sum(values, start=Fraction()) / len(values)
