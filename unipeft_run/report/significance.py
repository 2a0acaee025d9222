"""Significance tests for systems scored on the same examples, in numpy.

A system is a `Sample`: statistics of each example that can be summed, and the score of a sum. A
mean has the statistics (score, 1); BLEU has its n-gram counts (`statistics.py`). All tests resample
examples, not seeds: they say whether a difference would hold on other examples of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SAMPLES = 10_000  # resamples of each test
SEED = 12345  # sacreBLEU's
CHUNK = 1 << 21  # numbers held at once
TOLERANCE = 1e-9  # points; equal scores differ by rounding
BINARY = (0.0, 100.0)  # scores of a wrong and of a right class


@dataclass(frozen=True)
class Sample:
    """One system's results: statistics [n, k], and the score in percent [...] of sums [..., k]."""

    values: Array
    score: Callable[[Array], Array]

    @property
    def total(self) -> float:
        """The score on all examples."""
        return float(self.score(self.values.sum(axis=0)))


@dataclass(frozen=True)
class Difference:
    """A system's score minus the baseline's, in points.

    `low`, `high`: 95 % percentile interval of the paired bootstrap. `mcnemar`: mid-p value, None
    unless every example is right or wrong.
    """

    points: float
    low: float
    high: float
    bootstrap: float
    randomisation: float
    mcnemar: float | None = None


def make_mean(scores: Sequence[float]) -> Sample:
    """Make the sample of a metric that is the mean of per-example scores."""
    values = np.stack([np.asarray(scores, dtype=float), np.ones(len(scores))], axis=1)
    return Sample(values, lambda sums: sums[..., 0] / sums[..., 1])


def compare(
    baseline: Sample, others: Sequence[Sample], samples: int = SAMPLES, seed: int = SEED
) -> list[Difference]:
    """Test each of `others` against `baseline`; all were scored on the same examples, in order."""
    scores = bootstrap_scores([baseline, *others], samples, seed)
    shuffled = randomise(baseline, others, samples, seed)
    found = []
    for number, other in enumerate(others):
        points = other.total - baseline.total
        drawn = scores[:, number + 1] - scores[:, 0]
        low, high = np.percentile(drawn, [2.5, 97.5])
        p_values = bootstrap_p(drawn, points), randomisation_p(shuffled[:, number], points)
        found.append(Difference(points, low, high, *p_values, _mcnemar_of(baseline, other)))
    return found


def bootstrap_scores(systems: Sequence[Sample], samples: int = SAMPLES, seed: int = SEED) -> Array:
    """Score every system on the same resamples of the examples: [samples, systems]."""
    count = len(systems[0].values)
    table = np.concatenate([system.values for system in systems], axis=1)
    generator = np.random.default_rng(seed)
    sums = [
        _count_draws(generator.integers(count, size=(rows, count))) @ table
        for rows in _chunks(samples, count)
    ]
    return _score(systems, np.concatenate(sums))


def bootstrap_p(drawn: Array, points: float) -> float:
    """Return the two-sided p-value of a paired bootstrap (Efron and Tibshirani, 1993, ch. 16).

    The share of resampled differences that lie at least as far from their mean as the observed
    difference lies from 0. sacreBLEU and Moses centre the absolute differences instead, which gives
    smaller values that contradict the interval.
    """
    return _p_value(np.abs(drawn - drawn.mean()), abs(points))


def randomise(
    baseline: Sample, others: Sequence[Sample], samples: int = SAMPLES, seed: int = SEED
) -> Array:
    """Return score differences [samples, others] after swapping the systems' outputs at random."""
    count = len(baseline.values)
    changes = np.concatenate([other.values - baseline.values for other in others], axis=1)
    totals = np.concatenate([other.values.sum(axis=0) for other in others])
    firsts = np.tile(baseline.values.sum(axis=0), len(others))
    generator = np.random.default_rng(seed)
    moved = np.concatenate(
        [
            generator.integers(2, size=(rows, count)).astype(float) @ changes
            for rows in _chunks(samples, count)
        ]
    )
    return _score(others, totals - moved) - _score(others, firsts + moved)


def randomisation_p(shuffled: Array, points: float) -> float:
    """Return the two-sided p-value of approximate randomisation (Noreen, 1989).

    As in Riezler and Maxwell (2005): (c + 1) / (samples + 1), where c counts the shuffles with a
    difference at least as large as the observed one.
    """
    return _p_value(np.abs(shuffled), abs(points))


def mcnemar(first_only: int, second_only: int) -> tuple[float, float]:
    """Return the exact and the mid-p value of McNemar's test, two-sided.

    Args: the examples that only the first and only the second system gets right. The mid-p value
    (Fagerland et al., 2013) counts half of the observed outcome's probability; the exact one is
    conservative.
    """
    fewer, pairs = min(first_only, second_only), first_only + second_only
    tail, last, term = 0, 1, 1
    for number in range(fewer + 1):
        last = term
        tail += term
        term = term * (pairs - number) // (number + 1)
    assert last == comb(pairs, fewer)
    exact, observed = 2 * tail / 2**pairs, last / 2**pairs
    return min(1.0, exact), min(1.0, exact - observed)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple comparisons (Holm, 1979): the family-wise error is kept."""
    order = np.argsort(p_values, kind="stable")
    weights = np.arange(len(p_values), 0, -1)
    stepped = np.maximum.accumulate(weights * np.asarray(p_values, dtype=float)[order])
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, stepped)
    return [float(value) for value in adjusted]


def _mcnemar_of(baseline: Sample, other: Sample) -> float | None:
    pairs = [sample.values for sample in (baseline, other)]
    if any(values.shape[1] != 2 or not np.isin(values[:, 0], BINARY).all() for values in pairs):
        return None
    first, second = (values[:, 0] > 0 for values in pairs)
    return mcnemar(int((first & ~second).sum()), int((second & ~first).sum()))[1]


def _p_value(sizes: Array, observed: float) -> float:
    count = int((sizes >= observed - TOLERANCE).sum())
    return (count + 1) / (len(sizes) + 1)


def _score(systems: Sequence[Sample], sums: Array) -> Array:
    """Score the systems' sums, concatenated along the last axis."""
    parts = np.split(sums, len(systems), axis=1)
    return np.stack([s.score(part) for s, part in zip(systems, parts, strict=True)], axis=1)


def _count_draws(indices: NDArray[np.int64]) -> Array:
    """Count how often each row of `indices` [rows, n] draws each of the n examples."""
    rows, count = indices.shape
    places = indices + count * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count).astype(float)


def _chunks(samples: int, count: int) -> Iterator[int]:
    """Yield numbers of rows that add up to `samples`, each small enough to hold in memory."""
    rows = max(1, CHUNK // count)
    while samples > 0:
        yield min(rows, samples)
        samples -= rows
