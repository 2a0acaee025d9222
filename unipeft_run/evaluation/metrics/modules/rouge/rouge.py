"""ROUGE-1, -2, -L and -Lsum (%), as an `evaluate` module.

`evaluate.load` takes the path of this folder.
"""

from typing import Any

import datasets
import evaluate

from unipeft_run.evaluation.metrics import rouge


class Rouge(evaluate.Metric):  # type: ignore[misc]
    """Scores summaries against one reference each."""

    def _info(self) -> evaluate.MetricInfo:
        features = {name: datasets.Value("string") for name in ("predictions", "references")}
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Lin (2004), ROUGE",
            inputs_description="One prediction and one reference per example; "
            "tokenizer: None for rouge-score's own, or 'unicode'.",
            features=datasets.Features(features),
        )

    def _compute(
        self, predictions: list[Any], references: list[Any], tokenizer: str | None = None
    ) -> dict[str, Any]:
        scores = rouge(predictions, references, tokenizer)
        return {**scores.metrics, "signatures": scores.signatures}
