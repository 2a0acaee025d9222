"""WMT 2016: translate from English to Romanian (Bojar et al., 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.sequence import SequenceTask
from unipeft_run.data.tasks.splits import Splits
from unipeft_run.evaluation.metrics import Scores, bleu


@dataclass(kw_only=True)
class WMT16EnRo(SequenceTask):
    """Translation.

    `column` is nested and holds one text per language; the data may have one column per language
    instead. `source_code` and `target_code` are mBART's language codes.
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
        """`bleu_paper` for Romanian targets, else `bleu`."""
        return "bleu_paper" if self._language == "ro" else "bleu"

    @property
    def _language(self) -> str:
        """The target language; "ro" only if both its name and its code are Romanian."""
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
        """Compute BLEU, for Romanian also in the paper's protocol, and chrF."""
        return bleu(predictions, references, self._language)
