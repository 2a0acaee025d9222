"""Classification of one text, or of a pair, on the user's own data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from unipeft_run.config.types import StringOrList, Words, one_or_many
from unipeft_run.data.tasks.classification import ClassificationTask
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.messages import list_names
from unipeft_run.data.tasks.own_data import IDENTIFIER, OwnData
from unipeft_run.data.tasks.own_source import Summary
from unipeft_run.data.tasks.splits import Splits
from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics import Scores
from unipeft_run.evaluation.metrics.by_name import Kind, Outputs, score

MOST_CLASSES = 1000
FEW_EXAMPLES = 20  # with fewer examples, each may have its own class


@dataclass(kw_only=True)
class TextClassification(OwnData, ClassificationTask):
    """Predict the class in column `label` from one or two columns of `text`.

    `labels` are the names of the classes, in order; None to take them from the data.
    """

    text: StringOrList = "text"  # type: ignore[assignment]
    label: str = "label"
    labels: Words | None = None
    metric: StringOrList = ("accuracy", "f1_macro")

    metric_kind: ClassVar[Kind] = "classes"
    label_key: ClassVar[str] = "task.label"

    def __post_init__(self) -> None:
        self.text = one_or_many(self.text)
        if len(self.text) not in (1, 2):
            raise UserError(f"task.text names {len(self.text)} columns; give one, or two for pairs")
        super().__post_init__()
        if self.labels is not None:
            self._check_labels(self.labels)

    def _check_labels(self, labels: Sequence[str]) -> None:
        if len({label.casefold() for label in labels}) < max(2, len(labels)):
            raise UserError(f"task.labels=[{','.join(labels)}]: give two or more different names")
        if "f1" in self.metrics and len(labels) != 2:
            raise UserError(
                f"task.metric=f1 is for two classes, and there are {len(labels)}; take f1_macro"
            )

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(self.labels or ())

    @property
    def columns(self) -> Columns:
        keys = {self.label: "task.label", **dict.fromkeys(self.text, "task.text")}
        return Columns(self.text, self.label, self.label_names, IDENTIFIER, keys=keys)

    @property
    def _summary_columns(self) -> Columns:
        return replace(self.columns, labels=None)

    def summarise(self) -> Summary:
        """Count the examples and collect the labels.

        Raises `UserError` if the column of labels holds one value, or too many to be classes.
        """
        found = super().summarise()
        labels, examples = found.labels, sum(found.examples.values())
        too_many = len(labels) > max(FEW_EXAMPLES, min(MOST_CLASSES, examples // 2))
        if len(labels) < 2 or too_many:
            values = "the same value" if len(labels) < 2 else f"{len(labels):,} different values"
            raise UserError(
                f"task.label={self.label}: the column holds {values} in {examples:,} examples "
                f"({list_names(labels[:5])}); classes are two or more values that recur"
            )
        return found

    def class_names(self) -> tuple[str, ...]:
        """List the distinct labels. Raises `UserError` if the splits have different classes."""
        found = self.summarise()
        for split in found.disjoint:
            raise UserError(
                f"task.label={self.label}: the {split} split has no label in common with the train "
                "split; leave that split out, or name all classes with task.labels"
            )
        return found.labels

    @property
    def baseline_name(self) -> str:
        return "the most frequent class"

    def baseline(self, splits: Splits) -> list[int]:
        counts = Counter(self.references(splits["train"]))
        frequent = min(counts, key=lambda number: (-counts[number], number))
        return [frequent] * len(splits["test"])

    def score(self, predictions: Sequence[int], references: Sequence[int]) -> Scores:
        """Compute the metrics in `metric`."""
        return score(self.metrics, Outputs(predictions, references))
