"""The interface of tasks from text to text, for encoder-decoder models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from unipeft_run.config.types import Count
from unipeft_run.data.tasks.base import Kind, TextTask
from unipeft_run.data.tasks.languages import encode_texts, language_code_id, uses_language_codes
from unipeft_run.data.text_encoder import check_length, shortest_length

if TYPE_CHECKING:  # these take seconds to import, and unipeft score needs neither
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from unipeft_run.data.text_encoder import TextEncoder


@dataclass(kw_only=True)
class SequenceTask(TextTask):
    """A task from text to text.

    As in the paper's code, targets are truncated to different lengths for training and evaluation.
    `language_codes`: mBART's codes of source and target, for tokenizers that use them.
    """

    max_target_length: Count
    eval_target_length: Count

    kind: ClassVar[Kind] = "seq2seq"
    # configuration keys of the language codes, for error messages
    language_keys: ClassVar[tuple[str, str]] = ("task.source_code", "task.target_code")

    @property
    @abstractmethod
    def language_codes(self) -> tuple[str, str]: ...

    @property
    @abstractmethod
    def source(self) -> str: ...

    @property
    @abstractmethod
    def target(self) -> str: ...

    @property
    def generates(self) -> bool:
        return True

    @property
    def input_columns(self) -> tuple[str, ...]:
        return (self.source,)

    def references(self, dataset: Dataset) -> list[str]:
        """Return the raw target texts."""
        return list(dataset[self.target])

    def _cache_key(self, train: bool) -> dict[str, Any]:
        target = self._target_length(train)
        return {"lengths": (self.max_source_length, target), "codes": self.language_codes}

    def _target_length(self, train: bool) -> int:
        return self.max_target_length if train else self.eval_target_length

    def _check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        for key, code in zip(self.language_keys, self.language_codes, strict=True):
            language_code_id(tokenizer, code, key)
        shortest = 3 if uses_language_codes(tokenizer) else shortest_length(tokenizer)
        for key in ("max_source_length", "max_target_length", "eval_target_length"):
            check_length(f"task.{key}", getattr(self, key), shortest)

    def _tokenize(
        self, batch: Mapping[str, list[Any]], encoder: TextEncoder, train: bool
    ) -> dict[str, list[Any]]:
        source_code, target_code = self.language_codes
        sources, targets = batch[self.source], batch[self.target]
        length = self._target_length(train)
        return {
            "input_ids": encode_texts(encoder, sources, self.max_source_length, source_code),
            "labels": encode_texts(encoder, targets, length, target_code),
        }
