"""Accuracy (%), as an `evaluate` module.

`evaluate.load` takes the path of this folder.
"""

from typing import Any

import datasets
import evaluate

from unipeft_run.evaluation.metrics import accuracy


class Accuracy(evaluate.Metric):  # type: ignore[misc]
    """Scores classes against one reference each."""

    def _info(self) -> evaluate.MetricInfo:
        features = {name: datasets.Value("int64") for name in ("predictions", "references")}
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Wang et al. (2019), GLUE",
            inputs_description="One prediction and one reference per example.",
            features=datasets.Features(features),
        )

    def _compute(self, predictions: list[Any], references: list[Any]) -> dict[str, Any]:
        scores = accuracy(predictions, references)
        return {**scores.metrics, "signatures": scores.signatures}
