"""Pearson and Spearman against scipy; accuracy, F1 and Matthews by their definitions."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from scipy import stats

from unipeft_run.evaluation.metrics.by_name import METRICS, Outputs, check_names, score
from unipeft_run.evaluation.metrics.correlation import pearson, spearman

RANDOM = np.random.default_rng(3)
PAIRS = [
    (RANDOM.normal(size=50), RANDOM.normal(size=50)),
    (RANDOM.integers(0, 5, 60).astype(float), RANDOM.integers(0, 5, 60).astype(float)),
    (1e8 + RANDOM.normal(size=30), np.arange(30.0)),
    (np.array([1.0, 2.0]), np.array([5.0, 3.0])),
]


@pytest.mark.parametrize(("x", "y"), PAIRS)
def test_correlations_equal_scipys(x: np.ndarray, y: np.ndarray) -> None:
    assert pearson(x.tolist(), y.tolist()) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-12)
    assert spearman(x.tolist(), y.tolist()) == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)


def test_a_constant_side_correlates_with_nothing() -> None:
    assert pearson([0.1, 0.1, 0.1], [1, 2, 3]) == spearman([1, 2, 3], [4, 4, 4]) == 0.0
    assert pearson([1.0], [2.0]) == 0.0


def test_correlations_are_in_percent_with_squared_errors() -> None:
    found = score(["pearson", "spearman"], Outputs([1.0, 2.0, 4.0], [1.0, 3.0, 2.0]))
    assert found.metrics["spearman"] == pytest.approx(50.0)
    assert found.per_example == [0.0, 1.0, 4.0]
    assert found.signatures["per_example"] == "pearson: squared error"
    with pytest.raises(ValueError, match="no predictions"):
        score(["pearson"], Outputs([], []))
    check_names(["spearman"], "numbers")
    assert not METRICS["pearson"].lower_is_better


def test_glues_metrics_of_classes_follow_their_definitions() -> None:
    predicted, actual = [1, 1, 1, 0, 0, 1, 0, 0], [1, 0, 1, 0, 1, 1, 0, 0]
    tp, fp, fn, tn = 3, 1, 1, 3
    found = score(["matthews", "f1", "accuracy"], Outputs(predicted, actual)).metrics
    matthews = (tp * tn - fp * fn) / sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert found["matthews"] == pytest.approx(100 * matthews)
    assert found["f1"] == pytest.approx(100 * 2 * tp / (2 * tp + fp + fn))
    assert found["accuracy"] == 75.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_do_not_correlate(value: float) -> None:
    for correlation in (pearson, spearman):
        assert correlation([1.0, value, 0.0], [1.0, 2.0, 3.0]) == 0.0
