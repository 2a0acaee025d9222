"""The metrics of classification tasks. F1 and its relatives agree with scikit-learn's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import copysign, sqrt

from unipeft_run.evaluation.metrics.scores import Scores, mean

SIGNATURE = "accuracy (%)"


def accuracy(predictions: Sequence[int], references: Sequence[int]) -> Scores:
    """Compute the percentage of predicted classes that equal their reference."""
    hits = [100.0 * (p == r) for p, r in zip(predictions, references, strict=True)]
    signatures = dict.fromkeys(("accuracy", "per_example"), SIGNATURE)
    return Scores({"accuracy": mean(hits)}, hits, signatures)


@dataclass(frozen=True)
class Confusion:
    """Predicted classes against their references, with the scores that follow, from 0 to 1.

    All but Matthews correlation are exact fractions.
    """

    predictions: Sequence[int]
    references: Sequence[int]

    @property
    def matthews(self) -> float:
        """Matthews correlation, for any number of classes (Gorodkin, 2004); 0 if undefined."""
        total, predicted, actual = len(self.references), self._predicted, self._actual
        covariance = self._hits.total() * total - sum(predicted[c] * actual[c] for c in actual)
        spread = [total**2 - sum(n**2 for n in counts.values()) for counts in (predicted, actual)]
        if not all(spread):
            return 0.0
        return copysign(sqrt(Fraction(covariance**2, spread[0] * spread[1])), covariance)

    @property
    def precisions(self) -> dict[int, Fraction]:
        """Precision of every class that occurs; 0 for a class that is never predicted."""
        return {c: _ratio(self._hits[c], self._predicted[c]) for c in self._classes}

    @property
    def recalls(self) -> dict[int, Fraction]:
        """Recall of every class that occurs; 0 for a class without examples."""
        return {c: _ratio(self._hits[c], self._actual[c]) for c in self._classes}

    @property
    def f1s(self) -> dict[int, Fraction]:
        """F1 of every class that occurs."""
        predicted, actual = self._predicted, self._actual
        return {c: _ratio(2 * self._hits[c], predicted[c] + actual[c]) for c in self._classes}

    def weighted(self, scores: dict[int, Fraction]) -> Fraction:
        """Average the scores of classes, weighted by their examples."""
        weighted = (scores[c] * n for c, n in self._actual.items())
        return sum(weighted, start=Fraction()) / len(self.references)

    @property
    def _classes(self) -> list[int]:
        return sorted({*self.predictions, *self.references})

    @cached_property
    def _predicted(self) -> Counter[int]:
        return Counter(self.predictions)

    @cached_property
    def _actual(self) -> Counter[int]:
        return Counter(self.references)

    @cached_property
    def _hits(self) -> Counter[int]:
        pairs = zip(self.predictions, self.references, strict=True)
        return Counter(p for p, r in pairs if p == r)


def _ratio(part: int, whole: int) -> Fraction:
    return Fraction(part, whole) if whole else Fraction()
