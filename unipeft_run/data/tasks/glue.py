"""The tasks of GLUE (Wang et al., 2019) that have no class of their own.

Their columns, labels and metrics are data: see conf/task/{cola,mrpc,qqp,stsb,qnli,rte,wnli}.yaml.
GLUE hides its test labels, so the test split is the development set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from unipeft_run.config.types import StringOrList, Words, one_or_many
from unipeft_run.data.tasks.base import Kind
from unipeft_run.data.tasks.classification import ClassificationTask
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.labelled import LabelledTask
from unipeft_run.data.tasks.naive_bayes import WORD
from unipeft_run.data.tasks.splits import Splits
from unipeft_run.evaluation.metrics import Scores
from unipeft_run.evaluation.metrics.by_name import Kind as MetricKind
from unipeft_run.evaluation.metrics.by_name import Outputs, check_names, score


@dataclass(kw_only=True)
class _GLUE(LabelledTask):
    """Prediction of a label from the texts in one or two columns.

    `metric` names the metrics; the first is the primary one. Raises `UserError` for an unknown one.
    """

    text: StringOrList
    metric: StringOrList
    label_column: str = "label"
    id_column: str = "idx"

    hub_splits: ClassVar[Mapping[str, str]] = {"test": "validation"}
    metric_kind: ClassVar[MetricKind]

    def __post_init__(self) -> None:
        self.text, self.metric = one_or_many(self.text), one_or_many(self.metric)
        check_names(self.metric, self.metric_kind)
        super().__post_init__()

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.metric

    @property
    def primary(self) -> str:
        return self.metric[0]

    def score(self, predictions: Sequence[Any], references: Sequence[Any]) -> Scores:
        """Compute the metrics in `metric`."""
        return score(self.metrics, Outputs(predictions, references))


@dataclass(kw_only=True)
class GLUE(_GLUE, ClassificationTask):
    """Classification. `labels` are the names of the classes, in the order of their numbers."""

    labels: Words
    selection: str = "accuracy"

    metric_kind: ClassVar[MetricKind] = "classes"

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(self.labels)

    @property
    def columns(self) -> Columns:
        return Columns(self.text, self.label_column, self.label_names, self.id_column)

    @property
    def baseline_name(self) -> str:
        return "the most frequent class"

    def baseline(self, splits: Splits) -> list[int]:
        counts = Counter(self.references(splits["train"]))
        frequent = min(counts, key=lambda number: (-counts[number], number))
        return [frequent] * len(splits["test"])


@dataclass(kw_only=True)
class GLUERegression(_GLUE):
    """Regression: the label is a number. A backbone with a classifier of one output predicts it."""

    selection: str = "pearson"

    kind: ClassVar[Kind] = "regression"
    metric_kind: ClassVar[MetricKind] = "numbers"

    @property
    def num_labels(self) -> int:
        return 1

    @property
    def columns(self) -> Columns:
        return Columns(self.text, self.label_column, (), self.id_column, numbers=True)

    @property
    def baseline_name(self) -> str:
        return "share of words in common"

    def baseline(self, splits: Splits) -> list[float]:
        texts = [splits["test"][column] for column in self.text]
        return [_overlap(*pair) for pair in zip(*texts, strict=True)]


def _overlap(*texts: str) -> float:
    """Return the words that all texts share, as a share of all their words (Jaccard)."""
    words = [set(WORD.findall(text.lower())) for text in texts]
    return len(set.intersection(*words)) / max(1, len(set.union(*words)))
