"""The interface of classification tasks: one or two texts in, a class out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from unipeft_run.data.tasks.base import Kind
from unipeft_run.data.tasks.labelled import LabelledTask
from unipeft_run.evaluation.metrics import Scores, accuracy


@dataclass(kw_only=True)
class ClassificationTask(LabelledTask):
    """A task from one or two texts to a class. Labels are class numbers, named in `label_names`."""

    kind: ClassVar[Kind] = "classification"

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy",)

    @property
    def primary(self) -> str:
        return "accuracy"

    def score(self, predictions: Sequence[int], references: Sequence[int]) -> Scores:
        """Compute accuracy in percent."""
        return accuracy(predictions, references)
