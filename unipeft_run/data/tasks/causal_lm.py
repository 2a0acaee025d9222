"""Prompts and responses on the user's own data, for decoder-only models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from unipeft_run.config.types import StringOrList, Words
from unipeft_run.data.tasks.causal import CausalTask
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.own_data import IDENTIFIER, OwnData
from unipeft_run.data.tasks.splits import Splits
from unipeft_run.data.tasks.template import Template
from unipeft_run.errors import UserError
from unipeft_run.evaluation.answers import AnswerRule, RuleName, score_answers
from unipeft_run.evaluation.metrics import Scores
from unipeft_run.evaluation.metrics.by_name import Kind, Outputs, score

if TYPE_CHECKING:  # takes seconds to import
    from datasets import Dataset


@dataclass(kw_only=True)
class CausalLM(OwnData, CausalTask):
    """Continue the prompt in column `prompt` with the response in column `response`.

    In the templates, {prompt} and {response} stand for these columns; other fields of the prompt's
    template are columns of the data. With `extract`, the rule that finds the answer in a response,
    the primary metric is the accuracy of the answers: `answer_words` are the words of the rule
    first_match, `marker` is the text before the answer of the rule text_after.
    """

    prompt: str = "prompt"
    response: str = "response"
    metric: StringOrList = ("exact_match", "rougeL")
    extract: RuleName | None = None
    answer_words: Words | None = None
    marker: str | None = None

    metric_kind: ClassVar[Kind] = "texts"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt == self.response:
            raise UserError(f"task.prompt and task.response both name the column {self.prompt!r}")
        if self.response in self.input_columns:
            raise UserError(
                f"task.prompt_template contains the response (column {self.response!r}), so the "
                "prompt would give away the answer"
            )
        needed = {"first_match": "answer_words", "text_after": "marker"}.get(self.extract or "")
        if needed and not getattr(self, needed):
            raise UserError(f"task.extract={self.extract} needs task.{needed}")

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*(["accuracy"] if self.extract else []), *self.metric)

    @property
    def primary(self) -> str:
        return self.metrics[0]

    @property
    def template_fields(self) -> tuple[Sequence[str], Sequence[str]]:
        return Template(self.prompt_template, "task.prompt_template").fields, ("response",)

    @property
    def columns(self) -> Columns:
        keys = {self.prompt: "task.prompt", self.response: "task.response"}
        text = (*self.input_columns, self.response)
        return Columns(text, identifier=IDENTIFIER, keys=keys)

    @property
    def input_columns(self) -> tuple[str, ...]:
        names = dict.fromkeys(map(self._column, self.template_fields[0]))
        return tuple(names) or (self.prompt,)

    def _column(self, field: str) -> str:
        return self.prompt if field == "prompt" else field

    def fill_fields(self, batch: Mapping[str, list[Any]]) -> Mapping[str, list[str]]:
        fields = {name: batch[self._column(name)] for name in self.template_fields[0]}
        return {**fields, "response": batch[self.response]}

    def references(self, dataset: Dataset) -> list[str]:
        """Return the responses as the template writes them, without surrounding space."""
        template = self._templates[1]
        return [template.fill_one({"response": text}).strip() for text in dataset[self.response]]

    def inert_keys(self) -> dict[str, str]:
        inert = super().inert_keys()
        for key, rule in (("answer_words", "first_match"), ("marker", "text_after")):
            if self.extract != rule:
                inert[key] = f"task.extract is not {rule}"
        return inert

    @property
    def baseline_name(self) -> str:
        return "the first training response"

    def baseline(self, splits: Splits) -> list[str]:
        return self.references(splits["train"])[:1] * len(splits["test"])

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> Scores:
        """Compute the metrics in `metric` and, with `extract`, the accuracy of the answers."""
        scores = score(self.metric, Outputs(predictions, references))
        if self.extract is None:
            return scores
        rule = AnswerRule(self.extract, self.answer_words or (), self.marker or "")
        answers = score_answers(rule, predictions, references)
        metrics = {**answers.metrics, **scores.metrics}
        return Scores(metrics, answers.per_example, {**scores.signatures, **answers.signatures})
