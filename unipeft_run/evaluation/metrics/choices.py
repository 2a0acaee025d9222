"""Accuracy of multiple choice: answers in generated texts, or the most likely choice."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Self

from unipeft_run.evaluation.answers import first_match
from unipeft_run.evaluation.metrics.scores import Scores, exact_mean

GENERATION = "accuracy (%): the first answer word in the text, case-sensitive"
LIKELIHOOD = "accuracy (%): the response with the largest log-likelihood"
NORMALISED = "accuracy (%): the response with the largest log-likelihood per token"
MEAN = "; plain mean of the tests"


class Likelihoods(NamedTuple):
    """The summed log-likelihood of every choice, and its number of tokens."""

    sums: list[float]
    tokens: list[int]

    def best(self, *, normalised: bool = False) -> int:
        """Return the choice with the largest log-likelihood, or the largest per token."""
        pairs = zip(self.sums, self.tokens, strict=True)
        scores = [total / count if normalised else total for total, count in pairs]
        return scores.index(max(scores))


class Reference(NamedTuple):
    """The right choice: its place, the answer words of all choices, and the test.

    `searched`: the words that a generated answer is searched for.
    """

    answer: int
    words: Sequence[str]
    searched: Sequence[str]
    task: str = ""

    @property
    def word(self) -> str:
        """The answer word of the right choice."""
        return self.words[self.answer]

    @classmethod
    def of_word(cls, word: str) -> Self:
        """Return the reference that an answer word alone stands for, such as answer2 or true."""
        stem = re.sub(r"\d+$", "", word)
        words = ["true", "false"] if stem == word else [f"{stem}{n}" for n in range(1, 6)]
        known = words if word in words else [*words, word]
        return cls(known.index(word), known, known)

    def is_right(self, prediction: Any, *, normalised: bool = False) -> bool:
        """Return whether a generated text, or the most likely choice, is right."""
        if isinstance(prediction, Likelihoods):
            return prediction.best(normalised=normalised) == self.answer
        return first_match(prediction, self.searched) == self.word


def score_choices(predictions: Sequence[Any], references: Sequence[Reference]) -> Scores:
    """Compute accuracy in percent, and with several tests the accuracy of each.

    Predictions are texts or `Likelihoods`; for the latter, the accuracy with normalised
    log-likelihoods is computed too. Scores per example are those of the first accuracy.
    """
    hits = _hits(predictions, references)
    if not isinstance(predictions[0], Likelihoods):
        return _scores("accuracy", hits, references, GENERATION)
    plain = _scores("accuracy", hits, references, LIKELIHOOD)
    hits = _hits(predictions, references, normalised=True)
    other = _scores("accuracy_normalised", hits, references, NORMALISED)
    metrics = plain.metrics | other.metrics
    return Scores(metrics, plain.per_example, other.signatures | plain.signatures)


def _hits(
    predictions: Sequence[Any], references: Sequence[Reference], *, normalised: bool = False
) -> list[float]:
    pairs = zip(predictions, references, strict=True)
    return [100.0 * r.is_right(p, normalised=normalised) for p, r in pairs]


def _scores(
    name: str, hits: list[float], references: Sequence[Reference], signature: str
) -> Scores:
    by_test: dict[str, list[float]] = defaultdict(list)
    for hit, reference in zip(hits, references, strict=True):
        by_test[reference.task].append(hit)
    accuracies = [exact_mean([*map(Fraction, values)]) for values in by_test.values()]
    metrics, signatures = {name: float(exact_mean(accuracies))}, {name: signature}
    if len(by_test) > 1:
        keys = [f"{name}_{test}" for test in by_test]
        metrics |= dict(zip(keys, map(float, accuracies), strict=True))
        signatures = {**dict.fromkeys(metrics, signature), name: signature + MEAN}
    return Scores(metrics, hits, {**signatures, "per_example": signature})
