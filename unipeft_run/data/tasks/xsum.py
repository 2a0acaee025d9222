"""XSum: summarise a news article in one sentence (Narayan et al., 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from unipeft_run.config.types import Count
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.sequence import SequenceTask
from unipeft_run.data.tasks.splits import Splits
from unipeft_run.evaluation.metrics import Scores, rouge, split_sentences


@dataclass(kw_only=True)
class XSum(SequenceTask):
    """Summarisation of a document in one sentence.

    The trivial baseline is the first `lead_words` words of the document, or its first sentence if
    `lead_words` is None. `rouge_tokenizer` is None for rouge-score's own, or "unicode"
    (docs/metrics.md).
    """

    source_column: str = "document"
    target_column: str = "summary"
    id_column: str = "id"
    lead_words: Count | None = None
    rouge_tokenizer: Literal["unicode"] | None = None
    selection: str = "rouge2"

    metrics: ClassVar[tuple[str, ...]] = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    primary: ClassVar[str] = "rouge2"
    language_keys: ClassVar[tuple[str, str]] = ("language code of xsum", "language code of xsum")

    @property
    def columns(self) -> Columns:
        return Columns((self.source_column, self.target_column), identifier=self.id_column)

    @property
    def source(self) -> str:
        return self.source_column

    @property
    def target(self) -> str:
        return self.target_column

    @property
    def language_codes(self) -> tuple[str, str]:
        return "en_XX", "en_XX"

    @property
    def baseline_name(self) -> str:
        return "first sentence" if self.lead_words is None else f"first {self.lead_words} words"

    def baseline(self, splits: Splits) -> list[str]:
        return [self._lead(text) for text in splits["test"][self.source_column]]

    def _lead(self, text: str) -> str:
        if self.lead_words is None:
            return split_sentences(text)[0]
        return " ".join(text.split()[: self.lead_words])

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> Scores:
        """Compute ROUGE-1, -2, -L and -Lsum in percent."""
        return rouge(predictions, references, self.rouge_tokenizer)
