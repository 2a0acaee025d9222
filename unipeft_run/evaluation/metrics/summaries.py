"""ROUGE, and the sentence splitter that ROUGE-Lsum needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Protocol

from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics.scores import Scores, mean

ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
MAX_WORD_PAIRS = 25_000_000  # cells of ROUGE-L's table: takes a few seconds and hundreds of MB
TITLES = "mr|mrs|ms|dr|prof|st|jr|sr|gen|sen|rep|rev|vs|etc|inc|ltd|co|e\\.g|i\\.e"
ABBREVIATION = re.compile(rf"[\"'(\[]*(?:(?i:{TITLES})|No|[A-Z])\.")
BOUNDARY = re.compile(r"[.!?][\"')\]]*(\s+)(?=[\"'(\[]*[A-Z0-9])")
TOKENIZER_NOTES = {
    "default": "default (only a-z and 0-9; text in other scripts scores 0), Porter stemmer",
    "unicode": "unicode (letters and digits of any script), Porter stemmer on a-z",
}


class Tokenizer(Protocol):
    """Splits a text into words; the interface of `rouge_score.tokenizers.Tokenizer`."""

    def tokenize(self, text: str) -> list[str]: ...


def rouge(
    predictions: Sequence[str], references: Sequence[str], tokenizer: str | None = None
) -> Scores:
    """Compute the F-measures of ROUGE-1, -2, -L and -Lsum; ROUGE-2 per example.

    `tokenizer`: None for rouge-score's own, which the paper used and which drops every character
    but a-z and 0-9; "unicode" for letters and digits of any script. The paper's code takes the
    median of bootstrapped means; this is the mean itself.
    """
    values = rouge_per_example(predictions, references, tokenizer)
    signatures = rouge_signatures(tokenizer)
    return Scores(
        {name: mean(values[name]) for name in ROUGES},
        values["rouge2"],
        {**signatures, "per_example": f"rouge2: {signatures['rouge2']}"},
    )


def rouge_per_example(
    predictions: Sequence[str], references: Sequence[str], tokenizer: str | None
) -> dict[str, list[float]]:
    """Compute the F-measures of each prediction in percent, by ROUGE variant."""
    from rouge_score.rouge_scorer import RougeScorer

    splitter = _build_tokenizer(tokenizer)
    scorer = RougeScorer(ROUGES, tokenizer=splitter)
    scored = []
    for number, pair in enumerate(zip(predictions, references, strict=True), start=1):
        _check_length(number, *pair, splitter)
        prediction, reference = ("\n".join(split_sentences(text)) for text in pair)
        scored.append(scorer.score(reference, prediction))
    return {name: [100.0 * score[name].fmeasure for score in scored] for name in ROUGES}


def rouge_signatures(tokenizer: str | None) -> dict[str, str]:
    """Return the signature of each ROUGE variant."""
    note = TOKENIZER_NOTES[tokenizer or "default"]
    base = f"rouge-score {version('rouge-score')}, tokenizer {note}, mean F"
    return dict.fromkeys(ROUGES, base) | {"rougeLsum": f"{base}, rule-based sentences"}


def split_sentences(text: str) -> list[str]:
    """Split English `text` into sentences by rule.

    A sentence ends at . ! or ? (and closing quotes or brackets) before a capital or a digit, except
    after a common abbreviation or a single capital letter.
    """
    sentences, start = [], 0
    for match in BOUNDARY.finditer(text):
        sentence = text[start : match.start(1)]
        if not ABBREVIATION.fullmatch(sentence.rsplit(maxsplit=1)[-1]):
            sentences.append(sentence)
            start = match.end(1)
    return [*sentences, text[start:]]


def _build_tokenizer(name: str | None) -> Tokenizer:
    if name == "unicode":
        from unipeft_run.evaluation.metrics.unicode_words import UnicodeTokenizer

        return UnicodeTokenizer()
    if name is not None:
        raise ValueError(f"tokenizer={name!r}: must be None or 'unicode'")
    from rouge_score.tokenizers import DefaultTokenizer

    tokenizer: Tokenizer = DefaultTokenizer(use_stemmer=True)
    return tokenizer


def _check_length(number: int, prediction: str, reference: str, tokenizer: Tokenizer) -> None:
    """Raise `UserError` if ROUGE-L of this pair would take minutes and gigabytes."""
    if len(prediction) * len(reference) <= MAX_WORD_PAIRS:
        return
    words = [len(tokenizer.tokenize(text)) for text in (prediction, reference)]
    if words[0] * words[1] > MAX_WORD_PAIRS:
        raise UserError(
            f"Example {number} is too long for ROUGE-L: {words[0]:,} words in the prediction times "
            f"{words[1]:,} in the reference must be at most {MAX_WORD_PAIRS:,}."
        )
