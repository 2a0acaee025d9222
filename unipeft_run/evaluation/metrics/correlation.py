"""Correlations of predicted numbers with their references, from -1 to 1, as scipy computes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from math import fsum, isfinite, sqrt


def pearson(predictions: Sequence[float], references: Sequence[float]) -> float:
    """Return the Pearson correlation; 0 where it is undefined: constant or not finite values."""
    if not all(map(isfinite, (*predictions, *references))):
        return 0.0
    first, second = _centre(predictions), _centre(references)
    norms = [sqrt(fsum(value * value for value in side)) for side in (first, second)]
    if not all(norms):
        return 0.0
    products = (a / norms[0] * (b / norms[1]) for a, b in zip(first, second, strict=True))
    return max(-1.0, min(1.0, fsum(products)))


def spearman(predictions: Sequence[float], references: Sequence[float]) -> float:
    """Return the Spearman rank correlation; equal values share the mean of their ranks."""
    if not all(map(isfinite, (*predictions, *references))):
        return 0.0
    return pearson(_rank(predictions), _rank(references))


def _centre(values: Sequence[float]) -> list[float]:
    """Subtract the mean; equal values give exact zeros."""
    mean = values[0] if min(values) == max(values) else fsum(values) / len(values)
    return [value - mean for value in values]


def _rank(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, from 1."""
    counts = sorted(Counter(values).items())
    last = accumulate(count for _, count in counts)
    ranks = {v: end - (count - 1) / 2 for (v, count), end in zip(counts, last, strict=True)}
    return [ranks[value] for value in values]
