"""MNLI: does the premise entail the hypothesis? (GLUE; Williams et al., 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from unipeft_run.data.tasks.classification import ClassificationTask
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.naive_bayes import NaiveBayes
from unipeft_run.data.tasks.splits import Companion, Splits


@dataclass(kw_only=True)
class MNLI(ClassificationTask):
    """Natural language inference: classify a pair of premise and hypothesis.

    GLUE hides its test labels, so the test split is the matched development set, as in the paper.
    Two further accuracies are reported: on its first 1,600 examples, which are all that the paper's
    code evaluates, and on the mismatched set. A folder may lack validation_mismatched.
    """

    premise_column: str = "premise"
    hypothesis_column: str = "hypothesis"
    label_column: str = "label"
    id_column: str = "idx"
    selection: str = "accuracy"

    optional_splits: ClassVar[tuple[str, ...]] = ("validation_mismatched",)
    hub_splits: ClassVar[Mapping[str, str]] = {
        "validation": "validation_matched",
        "test": "validation_matched",
    }
    companions: ClassVar[Mapping[str, Mapping[str, Companion]]] = {
        "test": {
            "first_1600": Companion("test", 1600),
            "mismatched": Companion("validation_mismatched"),
        }
    }

    @property
    def label_names(self) -> tuple[str, ...]:
        return ("entailment", "neutral", "contradiction")

    @property
    def columns(self) -> Columns:
        text = self.premise_column, self.hypothesis_column
        return Columns(text, self.label_column, self.label_names, self.id_column)

    @property
    def baseline_name(self) -> str:
        return "naive Bayes on the hypothesis alone"

    def baseline(self, splits: Splits) -> list[int]:
        train, column = splits["train"], self.hypothesis_column
        model = NaiveBayes(train[column], self.references(train), len(self.label_names))
        return [model.predict(text) for text in splits["test"][column]]
