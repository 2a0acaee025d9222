"""Estimates of differences against closed formulas, scipy and simulation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from archive import Record
from claims import CLAIMS, Claim, Pair, list_claimed
from estimates import VERDICTS, Finding, combine, estimate, judge, summarise
from scipy import stats

EXAMPLES = 200
PAIR = Pair("table3", "PA (ffn), r=200", "SA (ffn), r=200", "xsum")
CLAIM = Claim("ordered", "", (PAIR,))


def _make(cell: str, seed: int, scores: Any) -> Record:
    metrics = {"primary": "test/rouge2", "test/rouge2": float(np.mean(scores))}
    metrics |= {"signatures": {"rouge2": ""}, "task": "xsum", "method": "m"}
    values = [float(score) for score in scores]
    texts = json.dumps(metrics), "{}", "", "", "same"
    return Record(cell, seed, f"{seed:08x}", "done", "here", "", *texts, values, 1)


def _make_cell(cell: str, means: Sequence[float], seed: int = 0) -> list[Record]:
    """Make runs with exactly these means and the same spread over examples."""
    noise = np.random.default_rng(seed).normal(0, 10, EXAMPLES)
    return [_make(cell, n, mean + noise - noise.mean()) for n, mean in enumerate(means)]


def test_seed_interval_is_welchs() -> None:
    first, second = [12.0, 13.0, 15.5], [10.0, 10.2, 10.1]
    found = estimate(_make_cell("a", first), _make_cell("b", second))
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert found.seeds == pytest.approx((expected.low, expected.high))
    assert found.difference == pytest.approx(np.mean(first) - np.mean(second))


def test_example_interval_is_that_of_the_paired_differences() -> None:
    first = _make_cell("a", [12.0, 12.0, 12.0], seed=1)
    second = _make_cell("b", [11.0, 11.0, 11.0], seed=2)
    found = estimate(first, second)
    differences = np.subtract(first[0].statistics, second[0].statistics)
    expected = stats.t.interval(0.95, EXAMPLES - 1, differences.mean(), stats.sem(differences))
    assert found.examples == pytest.approx(expected, abs=0.1)
    assert found.both == pytest.approx(found.examples, abs=0.1)  # the seeds agree exactly
    assert found.p == pytest.approx(
        stats.ttest_rel(*(r[0].statistics for r in (first, second))).pvalue, rel=0.2
    )


def test_both_adds_variances_and_degrees_of_freedom() -> None:
    error, freedom = combine([(0.3, 2), (0.4, 2), (0.5, 199)])
    assert error == pytest.approx(1.2**0.5)
    assert freedom == pytest.approx(1.2**2 / (0.3**2 / 2 + 0.4**2 / 2 + 0.5**2 / 199))
    found = estimate(_make_cell("a", [12, 13, 15], 1), _make_cell("b", [10, 11, 10], 2))
    widths = [high - low for low, high in (found.both, found.examples)]
    assert widths[0] > widths[1]


def test_coverage_of_both() -> None:
    """The interval covers the true difference where seeds and examples both vary."""
    generator, covered, widths = np.random.default_rng(7), 0, []
    for _ in range(60):
        shift = generator.normal(0, 2, EXAMPLES)  # an example is harder for one method
        cells = []
        for cell in (0, 1):
            seeds = generator.normal(0, 0.3, 3)
            rows = [10 + seed + cell * shift + generator.normal(0, 3, EXAMPLES) for seed in seeds]
            cells.append([_make(str(cell), n, row) for n, row in enumerate(rows)])
        low, high = estimate(cells[1], cells[0]).both
        covered += low <= 0 <= high
        widths.append(high - low)
    assert covered >= 53
    # standard error of the difference, from the variances drawn above
    error = (2 * 0.3**2 / 3 + 2**2 / EXAMPLES + 2 * 3**2 / 3 / EXAMPLES) ** 0.5
    assert np.median(widths) < 8 * error  # 4 at many seeds


def test_one_seed_is_not_judged() -> None:
    assert estimate(_make_cell("a", [1.0]), _make_cell("b", [1.0, 2.0])) is None
    assert judge([CLAIM], {})[0][0].verdict == "incomplete"


def test_cells_with_other_examples_are_not_compared() -> None:
    first, second = _make_cell("a", [1.0, 2.0]), _make_cell("b", [1.0, 2.0])
    with pytest.raises(ValueError, match="a and b were scored on different test examples"):
        estimate(first, [replace(record, examples="others") for record in second])


def _judge(claim: Claim, first: Sequence[float], second: Sequence[float]) -> list[Finding]:
    cells = zip(claim.pairs[0].cells, (first, second), strict=True)
    return judge([claim], {cell.name: _make_cell(cell.name, means) for cell, means in cells})[0]


def test_verdicts_follow_the_sign_and_the_evidence() -> None:
    low, high, apart = [10.0, 10.1, 10.2], [14.0, 14.1, 14.2], [8.0, 12.0, 16.0]
    assert [f.verdict for f in _judge(CLAIM, high, low)] == ["holds"]
    assert [f.verdict for f in _judge(CLAIM, low, high)] == ["does not hold"]
    assert [f.verdict for f in _judge(CLAIM, apart, low)] == ["undecided"]


def test_close_is_an_interval_within_the_margin() -> None:
    close = replace(CLAIM, close=True)
    level, near, far = [10.0, 10.1, 10.2], [10.2, 10.3, 10.1], [14.0, 14.1, 14.2]
    assert summarise(_judge(close, level, near)) == "holds"
    assert summarise(_judge(close, level, far)) == "does not hold"
    assert summarise(_judge(close, level, [8.0, 12.0, 16.0])) == "undecided"


def test_p_values_of_all_ordered_pairs_are_adjusted_together() -> None:
    cells = {cell.name: number for number, cell in enumerate(list_claimed())}
    means = {name: [10 + n / 4, 10.1 + n / 4, 10.2 + n / 4] for name, n in cells.items()}
    runs = {name: _make_cell(name, means[name], cells[name]) for name in cells}
    findings = judge(CLAIMS, runs)
    ordered = [
        finding
        for claim, found in zip(CLAIMS, findings, strict=True)
        for finding in found
        if not claim.close
    ]
    raw = sorted(finding.estimate.p for finding in ordered)
    adjusted = sorted(finding.p_holm for finding in ordered)
    expected, largest = [], 0.0
    for rank, p in enumerate(raw):
        largest = max(largest, min(1.0, p * (len(raw) - rank)))
        expected.append(largest)
    assert adjusted == pytest.approx(expected)
    assert 0 < adjusted[0] < 1


def test_a_claim_holds_if_all_its_pairs_do() -> None:
    finding = Finding(PAIR, None, None, "holds")
    other = {name: replace(finding, verdict=name) for name in VERDICTS}
    assert summarise([finding, finding]) == "holds"
    assert summarise([finding, other["undecided"]]) == "holds in part"
    assert summarise([finding, other["does not hold"]]) == "undecided"
    assert summarise([other["incomplete"], other["does not hold"]]) == "does not hold"
    assert summarise([other["incomplete"], other["undecided"]]) == "undecided"
    assert summarise([other["incomplete"]]) == "incomplete"
