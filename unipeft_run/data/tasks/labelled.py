"""The interface of tasks that read one or two texts and predict a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unipeft_run.data.tasks.base import TextTask
from unipeft_run.data.text_encoder import check_length, shortest_length

if TYPE_CHECKING:  # these take seconds to import, and unipeft score needs neither
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from unipeft_run.data.text_encoder import TextEncoder


@dataclass(kw_only=True)
class LabelledTask(TextTask):
    """A task from one or two texts to a label, a class number or a number."""

    def references(self, dataset: Dataset) -> list[Any]:
        return list(dataset[self._label])

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
