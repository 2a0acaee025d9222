"""Correlations of predicted numbers with their references, from -1 to 1, as scipy computes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def pearson(predictions: Sequence[float], references: Sequence[float]) -> float:
    """Return the Pearson correlation; 0 if one side is constant, where it is undefined."""
    centred = [_centre(np.asarray(side, np.float64)) for side in (predictions, references)]
    norms = [float(np.linalg.norm(side)) for side in centred]
    if not all(norms):
        return 0.0
    first, second = (side / norm for side, norm in zip(centred, norms, strict=True))
    return float(np.clip(first @ second, -1.0, 1.0))


def spearman(predictions: Sequence[float], references: Sequence[float]) -> float:
    """Return the Spearman rank correlation; equal values share the mean of their ranks."""
    return pearson(_rank(predictions), _rank(references))


def _centre(values: Floats) -> Floats:
    """Subtract the mean; equal values give exact zeros."""
    return values - (values.mean() if np.ptp(values) else values[0])


def _rank(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, from 1."""
    _, places, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: list[float] = (last - (counts - 1) / 2)[places].tolist()
    return ranks
