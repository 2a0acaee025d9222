"""GSM8K: solve a word problem in steps (Cobbe et al., 2021)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from unipeft_run.data.tasks.causal import CausalTask, most_frequent
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.source import DataSource, Source
from unipeft_run.data.tasks.splits import Splits
from unipeft_run.evaluation.answers import AnswerRule, score_answers
from unipeft_run.evaluation.metrics import Scores

if TYPE_CHECKING:  # takes seconds to import
    from datasets import Dataset

CALCULATION = re.compile(r"<<[^>]*>>")  # as in 48/2 = <<48/2=24>>24


@dataclass(kw_only=True)
class GSM8K(CausalTask):
    """Word problems, answered by steps and a final number after "####".

    The data set's calculator annotations are removed. `extract` names the rule for the answer. On
    the hub there is no validation split; the test split stands in for it.
    """

    question_column: str = "question"
    answer_column: str = "answer"
    extract: Literal["last_number", "first_letter"] = "last_number"
    selection: str = "accuracy"

    @property
    def template_fields(self) -> tuple[Sequence[str], Sequence[str]]:
        return ("question",), ("answer",)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy",)

    @property
    def primary(self) -> str:
        return "accuracy"

    @property
    def columns(self) -> Columns:
        return Columns((self.question_column, self.answer_column), identifier="id")

    @property
    def input_columns(self) -> tuple[str, ...]:
        return (self.question_column,)

    def fill_fields(self, batch: Mapping[str, list[Any]]) -> Mapping[str, list[str]]:
        answers = [CALCULATION.sub("", text) for text in batch[self.answer_column]]
        return {"question": batch[self.question_column], "answer": answers}

    def references(self, dataset: Dataset) -> list[str]:
        return [CALCULATION.sub("", text) for text in dataset[self.answer_column]]

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> Scores:
        """Compute the percentage of right final numbers."""
        return score_answers(AnswerRule(self.extract), predictions, references)

    @property
    def baseline_name(self) -> str:
        return "the most frequent number"

    def baseline(self, splits: Splits) -> list[str]:
        rule = AnswerRule(self.extract)
        answers = [rule.extract(text) for text in self.references(splits["train"])]
        found = most_frequent([answer for answer in answers if answer is not None] or [""])
        text = f"{found:g}" if isinstance(found, float) else found
        return [f"#### {text}"] * len(splits["test"])

    @property
    def _source(self) -> DataSource:
        names = {"validation": "test"}
        return Source(self.name, self.path, self.mini, self.hub, self.optional_splits, names)
