"""Accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from unipeft_run.evaluation.metrics.scores import Scores, mean

SIGNATURE = "share of equal classes, percent"


def accuracy(predictions: Sequence[int], references: Sequence[int]) -> Scores:
    """The share of equal pairs."""
    hits = [100.0 * (p == r) for p, r in zip(predictions, references, strict=True)]
    signatures = dict.fromkeys(("accuracy", "per_example"), SIGNATURE)
    return Scores({"accuracy": mean(hits)}, hits, signatures)
