"""Multinomial naive Bayes on words and word pairs, a trivial baseline for classification."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

WORD = re.compile(r"\w+|[^\w\s]")


def features(text: str) -> list[str]:
    """Return the lower-cased words and punctuation marks of `text`, and each adjacent pair."""
    words = WORD.findall(text.lower())
    return words + [f"{a} {b}" for a, b in pairwise(words)]


class NaiveBayes:
    """argmax_c log P(c) + sum_f log P(f | c), with add-one smoothing; ignores unseen features."""

    def __init__(self, texts: Iterable[str], labels: Sequence[int], num_labels: int) -> None:
        counts: list[Counter[str]] = [Counter() for _ in range(num_labels)]
        for text, label in zip(texts, labels, strict=True):
            counts[label].update(features(text))
        self.vocabulary = frozenset().union(*counts)
        totals = [count.total() + len(self.vocabulary) for count in counts]
        self.counts, self.log_totals = counts, [math.log(max(1, total)) for total in totals]
        classes = Counter(labels)
        self.prior = [
            math.log((classes[c] + 1) / (len(labels) + num_labels)) for c in range(num_labels)
        ]

    def predict(self, text: str) -> int:
        """Return the most probable class; ties go to the lower number."""
        known = [feature for feature in features(text) if feature in self.vocabulary]
        scores = [
            prior + sum(math.log(count[f] + 1) for f in known) - len(known) * log_total
            for prior, count, log_total in zip(
                self.prior, self.counts, self.log_totals, strict=True
            )
        ]
        return scores.index(max(scores))
