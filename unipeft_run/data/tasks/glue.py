"""The classification tasks of GLUE (Wang et al., 2019) that have no class of their own.

Their columns, classes and metrics are data: see conf/task/{cola,mrpc,qqp,qnli,rte,wnli}.yaml.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from unipeft_run.config.types import Names, StringOrList
from unipeft_run.data.tasks.classification import ClassificationTask
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.splits import Splits
from unipeft_run.evaluation.metrics import Scores
from unipeft_run.evaluation.metrics.by_name import Outputs, check_names, score


@dataclass(kw_only=True)
class GLUE(ClassificationTask):
    """Classification of the texts in one or two columns.

    GLUE hides its test labels, so the test split is the development set. `labels` are the classes
    in the order of their numbers. The first `metric` is the headline.

    Raises `UserError` for an unknown metric.
    """

    text: StringOrList
    labels: Names
    metric: StringOrList = ("accuracy",)
    label_column: str = "label"
    id_column: str = "idx"
    selection: str = "accuracy"

    hub_splits: ClassVar[Mapping[str, str]] = {"test": "validation"}

    def __post_init__(self) -> None:
        check_names(self.metric, "classes")
        super().__post_init__()

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.metric)

    @property
    def primary(self) -> str:
        return self.metric[0]

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(self.labels)

    @property
    def columns(self) -> Columns:
        return Columns(tuple(self.text), self.label_column, self.label_names, self.id_column)

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
