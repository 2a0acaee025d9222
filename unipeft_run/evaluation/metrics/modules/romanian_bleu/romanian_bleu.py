"""BLEU by sacreBLEU and in the paper's Romanian protocol, and chrF, as an `evaluate` module.

`evaluate.load` takes the path of this folder.
"""

from typing import Any

import datasets
import evaluate

from unipeft_run.evaluation.metrics import bleu


class RomanianBleu(evaluate.Metric):  # type: ignore[misc]
    """Scores Romanian translations against one reference each."""

    def _info(self) -> evaluate.MetricInfo:
        features = {name: datasets.Value("string") for name in ("predictions", "references")}
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Papineni et al. (2002), BLEU; Post (2018), sacreBLEU",
            inputs_description="One prediction and one reference per example.",
            features=datasets.Features(features),
        )

    def _compute(self, predictions: list[Any], references: list[Any]) -> dict[str, Any]:
        scores = bleu(predictions, references)
        return {**scores.metrics, "signatures": scores.signatures}
