"""The interface of classification tasks: one or two texts in, a class out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from unipeft_run.data.tasks.base import Kind, Task
from unipeft_run.data.text_encoder import check_length, shortest_length
from unipeft_run.evaluation.metrics import Scores, accuracy

if TYPE_CHECKING:  # these take seconds to import, and unipeft score needs neither
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from unipeft_run.data.text_encoder import TextEncoder


@dataclass(kw_only=True)
class ClassificationTask(Task):
    """A task from one or two texts to a class. Labels are class numbers, named in `label_names`."""

    kind: ClassVar[Kind] = "classification"

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy",)

    @property
    def primary(self) -> str:
        return "accuracy"

    def references(self, dataset: Dataset) -> list[int]:
        return list(dataset[self._label])

    def score(self, predictions: Sequence[int], references: Sequence[int]) -> Scores:
        """Compute accuracy in percent."""
        return accuracy(predictions, references)

    def _cache_key(self, train: bool) -> dict[str, Any]:
        return {"length": self.max_source_length}

    def _check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        shortest = shortest_length(tokenizer, pair=len(self.columns.text) == 2)
        check_length("task.max_source_length", self.max_source_length, shortest)

    def _tokenize(
        self, batch: Mapping[str, list[Any]], encoder: TextEncoder, train: bool
    ) -> dict[str, list[Any]]:
        texts = [batch[column] for column in self.columns.text]
        ids = encoder.encode(*texts, max_length=self.max_source_length)
        return {"input_ids": ids, "labels": batch[self._label]}

    @property
    def _label(self) -> str:
        return str(self.columns.label)
