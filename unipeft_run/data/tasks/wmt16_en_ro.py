"""WMT 2016, English to Romanian."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unipeft_run.data.tasks.base import SequenceTask, Splits
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.evaluation.metrics import Scores, bleu


@dataclass(kw_only=True)
class WMT16EnRo(SequenceTask):
    """Translation. `column` holds one text per language; codes are mBART's language codes.

    Instead of a nested column the data may have one column per language.
    """

    column: str = "translation"
    source_language: str = "en"
    target_language: str = "ro"
    source_code: str = "en_XX"
    target_code: str = "ro_RO"
    selection: str = "loss"

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("bleu", "bleu_paper", "chrf") if self._language == "ro" else ("bleu", "chrf")

    @property
    def primary(self) -> str:
        """`bleu_paper` for Romanian targets; its normalisation fits no other language."""
        return "bleu_paper" if self._language == "ro" else "bleu"

    @property
    def _language(self) -> str:
        """Target language; "ro" only if both its name and its code are Romanian."""
        return self.target_code[:2] if self.target_language == "ro" else self.target_language

    @property
    def columns(self) -> Columns:
        plain = {self.source: self.source_language, self.target: self.target_language}
        return Columns((self.source, self.target), other_names=plain)

    @property
    def source(self) -> str:
        return f"{self.column}.{self.source_language}"

    @property
    def target(self) -> str:
        return f"{self.column}.{self.target_language}"

    @property
    def language_codes(self) -> tuple[str, str]:
        return self.source_code, self.target_code

    @property
    def baseline_name(self) -> str:
        return "the source, copied"

    def baseline(self, splits: Splits) -> list[str]:
        return list(splits["test"][self.source])

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> Scores:
        """Compute BLEU (for Romanian in the paper's protocol too) and chrF."""
        return bleu(predictions, references, self._language)
