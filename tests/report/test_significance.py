"""The significance tests agree with scipy and with sacreBLEU's paired tests."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest

from unipeft_run.report.significance import (
    Sample,
    bootstrap_scores,
    compare,
    holm,
    make_mean,
    mcnemar,
    randomisation_p,
    randomise,
)
from unipeft_run.report.statistics import CORPUS_METRICS

stats = pytest.importorskip("scipy.stats")
WORDS = "the a cat dog sat ran on under mat hat red blue big small and or".split()  # noqa: SIM905


def make_scores(shift: float, count: int = 80) -> tuple[list[float], list[float]]:
    generator = np.random.default_rng(3)
    first = generator.normal(20, 5, count)
    return list(first), list(first + generator.normal(shift, 4, count))


def near(p: float, samples: int) -> Any:
    """Compare with a p-value from that many resamples: within five standard errors of both."""
    error = math.sqrt(p * (1 - p) * (1 / samples + 1 / 10_000))
    return pytest.approx(p, abs=5 * error + 2 / samples)


@pytest.mark.parametrize("shift", [0.3, 1.0, 2.0])
def test_randomisation_agrees_with_scipy(shift: float) -> None:
    first, second = make_scores(shift)
    expected = stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(b, axis=axis) - np.mean(a, axis=axis),
        permutation_type="samples",
        n_resamples=10_000,
        vectorized=True,
        rng=np.random.default_rng(1),
    )
    (found,) = compare(make_mean(first), [make_mean(second)])
    assert found.points == pytest.approx(expected.statistic)
    assert found.randomisation == near(expected.pvalue, 10_000)


def test_the_bootstrap_interval_agrees_with_scipy() -> None:
    first, second = make_scores(1.0)
    expected = stats.bootstrap(
        (np.subtract(second, first),), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    (found,) = compare(make_mean(first), [make_mean(second)])
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.05)


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (3, 3), (2, 9), (0, 5), (40, 61), (900, 990)]
)
def test_mcnemar_agrees_with_the_binomial_test(first: int, second: int) -> None:
    exact, middle = mcnemar(first, second)
    pairs, fewer = first + second, min(first, second)
    if pairs:
        assert exact == pytest.approx(stats.binomtest(fewer, pairs).pvalue)
        tail, observed = stats.binom.cdf(fewer, pairs, 0.5), stats.binom.pmf(fewer, pairs, 0.5)
        assert middle == pytest.approx(min(1, 2 * tail - observed))
    else:
        assert (exact, middle) == (1, 1)


@pytest.mark.parametrize("shift", [0.3, 1.0, 2.0])
def test_the_bootstrap_agrees_with_the_t_test_and_with_its_interval(shift: float) -> None:
    first, second = make_scores(shift)
    expected = stats.ttest_rel(first, second).pvalue
    (found,) = compare(make_mean(first), [make_mean(second)])
    assert found.bootstrap == pytest.approx(expected, abs=0.02)
    assert (found.bootstrap < 0.05) == (found.low > 0)


def test_mcnemar_needs_right_and_wrong_answers() -> None:
    right, wrong = [100.0, 100.0, 0.0], [100.0, 0.0, 0.0]
    (found,) = compare(make_mean(right), [make_mean(wrong)])
    assert found.mcnemar == mcnemar(1, 0)[1]
    (found,) = compare(make_mean(right), [make_mean([50.0, 0.0, 0.0])])
    assert found.mcnemar is None


def test_accuracy_by_randomisation_is_about_mcnemars_exact_test() -> None:
    first = [100.0 * (n % 3 > 0) for n in range(90)]
    second = [100.0 * (n % 3 > 0 and n > 14) for n in range(87)] + [100.0] * 3
    (found,) = compare(make_mean(first), [make_mean(second)])
    only = sum(a > b for a, b in zip(first, second, strict=True))
    other = sum(a < b for a, b in zip(first, second, strict=True))
    assert found.randomisation == near(mcnemar(only, other)[0], 10_000)


def test_holm_steps_down_and_is_monotone() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
    values = list(np.random.default_rng(0).uniform(size=30) ** 3)
    for level in (0.001, 0.01, 0.05, 0.2):  # the definition: reject while p <= level / (m - k)
        ordered = sorted(values)
        failing = (k for k, p in enumerate(ordered) if p > level / (len(values) - k))
        rejected = ordered[: next(failing, len(values))]
        assert sorted(values)[: sum(p <= level for p in holm(values))] == rejected


def test_equal_systems_are_never_different() -> None:
    first, _ = make_scores(1.0)
    (found,) = compare(make_mean(first), [make_mean(first)])
    assert (found.points, found.bootstrap, found.randomisation) == (0, 1, 1)


# ---- corpus metrics against sacreBLEU


def make_texts(seed: int, noise: float, count: int = 50) -> tuple[list[str], list[str]]:
    """Make references, and predictions with that share of words replaced."""
    words = random.Random(7)
    references = [" ".join(words.choices(WORDS, k=words.randint(4, 14))) for _ in range(count)]
    change = random.Random(seed)
    predictions = [
        " ".join(change.choice(WORDS) if change.random() < noise else word for word in text.split())
        for text in references
    ]
    return predictions, references


def make_sample(metric: str, predictions: list[str], references: list[str]) -> Sample:
    names = ("prediction", "reference")
    pairs = zip(predictions, references, strict=True)
    rows = [dict(zip(names, pair, strict=True)) for pair in pairs]
    return CORPUS_METRICS[metric](rows, "nrefs:1|case:mixed|tok:13a|smooth:exp")


METRICS = {"bleu": BLEU, "chrf": CHRF}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("noise", [0.0, 0.3, 0.9, 1.0])
def test_scores_of_summed_statistics_are_sacrebleus(metric: str, noise: float) -> None:
    predictions, references = make_texts(1, noise)
    predictions[:3] = ["", "zzz", "the"]
    for part in (slice(None), slice(0, 3), slice(0, 1), slice(4, 6)):
        sample = make_sample(metric, predictions[part], references[part])
        scorer = METRICS[metric]()
        expected = scorer.corpus_score(predictions[part], [references[part]]).score
        assert sample.total == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("noise", [0.32, 0.36, 0.42])
def test_p_values_are_those_of_sacrebleus_paired_tests(
    monkeypatch: pytest.MonkeyPatch, metric: str, noise: float
) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "99")
    first, references = make_texts(1, 0.3)
    second, _ = make_texts(2, noise)
    systems = [("first", first), ("second", second)]
    ours = [make_sample(metric, texts, references) for texts in (first, second)]
    points = ours[1].total - ours[0].total
    sizes = np.abs(np.diff(bootstrap_scores(ours), axis=1)[:, 0])
    found = {
        "ar": randomisation_p(randomise(ours[0], ours[1:])[:, 0], points),
        "bs": float(np.mean(sizes - sizes.mean() > abs(points))),  # sacreBLEU's definition
    }
    for kind, p in found.items():
        scorers = {"metric": METRICS[metric]()}
        test = PairedTest(systems, scorers, [references], test_type=kind, n_samples=1000)
        (results,) = (value for name, value in test()[1].items() if name != "System")
        assert p == near(results[1].p_value, 1000), kind
