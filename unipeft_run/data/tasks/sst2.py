"""SST-2: is a sentence from a film review positive? (GLUE; Socher et al., 2013)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from unipeft_run.data.tasks.classification import ClassificationTask
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.naive_bayes import NaiveBayes
from unipeft_run.data.tasks.splits import Splits


@dataclass(kw_only=True)
class SST2(ClassificationTask):
    """Sentiment classification of a sentence.

    GLUE hides its test labels, so the test split is the development set.
    """

    text_column: str = "sentence"
    label_column: str = "label"
    id_column: str = "idx"
    selection: str = "accuracy"

    hub_splits: ClassVar[Mapping[str, str]] = {"test": "validation"}

    @property
    def label_names(self) -> tuple[str, ...]:
        return ("negative", "positive")

    @property
    def columns(self) -> Columns:
        return Columns((self.text_column,), self.label_column, self.label_names, self.id_column)

    @property
    def baseline_name(self) -> str:
        return "naive Bayes on words and word pairs"

    def baseline(self, splits: Splits) -> list[int]:
        train = splits["train"]
        model = NaiveBayes(train[self.text_column], self.references(train), len(self.label_names))
        return [model.predict(text) for text in splits["test"][self.text_column]]
