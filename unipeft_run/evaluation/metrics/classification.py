"""The metric of classification tasks: accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from unipeft_run.evaluation.metrics.scores import Scores, mean

SIGNATURE = "accuracy (%)"


def accuracy(predictions: Sequence[int], references: Sequence[int]) -> Scores:
    """Compute the percentage of predicted classes that equal their reference."""
    hits = [100.0 * (p == r) for p, r in zip(predictions, references, strict=True)]
    signatures = dict.fromkeys(("accuracy", "per_example"), SIGNATURE)
    return Scores({"accuracy": mean(hits)}, hits, signatures)
