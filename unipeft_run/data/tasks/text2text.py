"""Text to text on the user's own data: translation, summarisation, any pairs of texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from unipeft_run.config.types import StringOrList
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.own_data import IDENTIFIER, OwnData
from unipeft_run.data.tasks.sequence import SequenceTask
from unipeft_run.data.tasks.splits import Splits
from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics import Scores
from unipeft_run.evaluation.metrics.by_name import Kind, Outputs, score


@dataclass(kw_only=True)
class Text2Text(OwnData, SequenceTask):
    """Generate the text in column `target` from the text in column `source`.

    `source_language` and `target_language` are mBART's codes, such as de_DE. The target language
    also selects BLEU's tokeniser; without an mBART backbone it may be just "de".
    """

    source: str = "source"
    target: str = "target"
    metric: StringOrList = ("chrf", "bleu", "rougeL")
    source_language: str | None = None
    target_language: str | None = None
    rouge_tokenizer: Literal["unicode"] | None = "unicode"

    metric_kind: ClassVar[Kind] = "texts"
    language_keys: ClassVar[tuple[str, str]] = ("task.source_language", "task.target_language")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source == self.target:
            raise UserError(f"task.source and task.target both name the column {self.source!r}")
        if "bleu_paper" in self.metrics and self._language != "ro":
            raise UserError(
                "task.metric=bleu_paper normalises Romanian text; give "
                "task.target_language=ro_RO if the target is Romanian, else choose bleu"
            )

    @property
    def _language(self) -> str | None:
        """The target language without its country."""
        return re.split("[_-]", self.target_language)[0].lower() if self.target_language else None

    @property
    def columns(self) -> Columns:
        keys = {self.source: "task.source", self.target: "task.target"}
        return Columns((self.source, self.target), identifier=IDENTIFIER, keys=keys)

    @property
    def language_codes(self) -> tuple[str, str]:
        return self.source_language or "", self.target_language or ""

    def inert_keys(self) -> dict[str, str]:
        inert = super().inert_keys()
        if not any(name.startswith("rouge") for name in self.metrics):
            inert["rouge_tokenizer"] = "task.metric has no ROUGE"
        return inert

    @property
    def baseline_name(self) -> str:
        return "the source, copied"

    def baseline(self, splits: Splits) -> list[str]:
        return list(splits["test"][self.source])

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> Scores:
        """Compute the metrics in `metric`."""
        outputs = Outputs(predictions, references, self._language, self.rouge_tokenizer)
        return score(self.metrics, outputs)
