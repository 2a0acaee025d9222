"""Differences between two cells, with the uncertainty of seeds and of test examples.

Seeds: the runs of a cell differ in their random numbers; Welch's t interval of the two means.
Examples: the paired bootstrap of the test examples, their statistics averaged over the seeds.
Both: the two variances added, with Welch-Satterthwaite degrees of freedom, and the p-value of a
t-test with this standard error, Holm-adjusted over all ordered pairs. Random differences of single
examples between seeds are in both variances, so intervals are rather too wide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, variance

import numpy as np
from archive import Record
from claims import MARGIN, Claim, Pair
from scipy.stats import t as student

from unipeft_run.report.significance import Sample, bootstrap_scores, holm

LEVEL = 0.05
FEWEST = 2  # seeds, for a variance
VERDICTS = ("holds", "does not hold", "undecided", "incomplete")

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """The first cell's score minus the second's, in points, with 95 % intervals."""

    difference: float
    seeds: Interval
    examples: Interval
    both: Interval
    p: float


@dataclass(frozen=True)
class Finding:
    """The verdict on a pair; `estimate` is None if runs are missing."""

    pair: Pair
    estimate: Estimate | None
    p_holm: float | None
    verdict: str


def estimate(first: Sequence[Record], second: Sequence[Record]) -> Estimate | None:
    """Estimate the difference of two cells from their runs; None with fewer than 2 seeds each."""
    if min(len(first), len(second)) < FEWEST:
        return None
    cells = first, second
    if len({record.examples for cell in cells for record in cell}) > 1:
        names = " and ".join(cell[0].cell for cell in cells)
        raise ValueError(f"{names} were scored on different test examples")
    scores = [[record.sample.total for record in cell] for cell in cells]
    difference = fmean(scores[0]) - fmean(scores[1])
    parts = [(variance(values) / len(values), len(values) - 1) for values in scores]
    drawn = np.diff(bootstrap_scores([pool(second), pool(first)]), axis=1)[:, 0]
    low, high = np.percentile(drawn, [2.5, 97.5])
    examples = float(drawn.var(ddof=1)), len(first[0].statistics) // first[0].width - 1
    error, freedom = combine([*parts, examples])
    return Estimate(
        difference,
        t_interval(difference, *combine(parts)),
        (float(low), float(high)),
        t_interval(difference, error, freedom),
        float(2 * student.sf(abs(difference) / error, freedom)) if error else 1.0,
    )


def pool(records: Sequence[Record]) -> Sample:
    """Average the statistics of each example over the seeds."""
    samples = [record.sample for record in records]
    return Sample(np.mean([sample.values for sample in samples], axis=0), samples[0].score)


def combine(parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Add variances with their degrees of freedom: standard error and degrees of freedom."""
    total = sum(part for part, _ in parts)
    weights = sum(part**2 / freedom for part, freedom in parts)
    return sqrt(total), total**2 / weights if weights else float(sum(f for _, f in parts))


def t_interval(middle: float, error: float, freedom: float) -> Interval:
    """Return the 95 % interval of a t distribution."""
    reach = float(student.ppf(1 - LEVEL / 2, freedom)) * error
    return middle - reach, middle + reach


def judge(claims: Sequence[Claim], runs: Mapping[str, Sequence[Record]]) -> list[list[Finding]]:
    """Judge every pair of every claim; the p-values of all ordered pairs are adjusted together."""
    found = [[_estimate_pair(pair, runs) for pair in claim.pairs] for claim in claims]
    ordered = [
        estimate.p
        for claim, estimates in zip(claims, found, strict=True)
        for estimate in estimates
        if estimate and not claim.close
    ]
    adjusted = iter(holm(ordered))
    return [
        [_judge_pair(claim, *each, adjusted) for each in zip(claim.pairs, estimates, strict=True)]
        for claim, estimates in zip(claims, found, strict=True)
    ]


def _estimate_pair(pair: Pair, runs: Mapping[str, Sequence[Record]]) -> Estimate | None:
    first, second = (runs.get(cell.name, []) for cell in pair.cells)
    return estimate(first, second)


def _judge_pair(
    claim: Claim, pair: Pair, found: Estimate | None, adjusted: Iterator[float]
) -> Finding:
    if not found:
        return Finding(pair, None, None, "incomplete")
    if claim.close:
        return Finding(pair, found, None, _judge_close(found.both))
    p = next(adjusted)
    if p >= LEVEL:
        return Finding(pair, found, p, "undecided")
    return Finding(pair, found, p, "holds" if found.difference > 0 else "does not hold")


def _judge_close(interval: Interval) -> str:
    low, high = interval
    if low >= -MARGIN and high <= MARGIN:
        return "holds"
    return "does not hold" if low > MARGIN or high < -MARGIN else "undecided"


def summarise(findings: Sequence[Finding]) -> str:
    """Return the verdict on a claim: "holds" if all its pairs do, "in part" if some do."""
    found = {finding.verdict for finding in findings}
    if len(found) == 1:
        return found.pop()
    if {"holds", "does not hold"} <= found or not found & {"holds", "does not hold"}:
        return "undecided"
    return "holds in part" if "holds" in found else "does not hold"
