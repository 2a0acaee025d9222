"""ROUGE, and the sentences that ROUGE-Lsum is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version

from unipeft_run.evaluation.metrics.scores import Scores, mean

ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
TITLES = "mr|mrs|ms|dr|prof|st|jr|sr|gen|sen|rep|rev|vs|etc|inc|ltd|co|e\\.g|i\\.e"
ABBREVIATION = re.compile(rf"(?:.*\s)?[\"'(\[]*(?:(?i:{TITLES})|No|[A-Z])\.", re.DOTALL)
BOUNDARY = re.compile(r"[.!?][\"')\]]*(\s+)(?=[\"'(\[]*[A-Z0-9])")


def rouge(predictions: Sequence[str], references: Sequence[str]) -> Scores:
    """F-measures of ROUGE-1, -2, -L and -Lsum (stemmed); ROUGE-2 per example.

    The paper's code takes the median of bootstrapped means; this is the mean itself.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(ROUGES, use_stemmer=True)
    lines = [
        ["\n".join(split_sentences(text)) for text in texts] for texts in (references, predictions)
    ]
    scored = [scorer.score(*pair) for pair in zip(*lines, strict=True)]
    values = {name: [100.0 * score[name].fmeasure for score in scored] for name in ROUGES}
    base = f"rouge-score {version('rouge-score')}, Porter stemmer, mean F"
    signatures = dict.fromkeys(ROUGES, base) | {"rougeLsum": f"{base}, sentences by rule"}
    return Scores(
        {name: mean(values[name]) for name in ROUGES},
        values["rouge2"],
        {**signatures, "per_example": f"rouge2: {base}"},
    )


def split_sentences(text: str) -> list[str]:
    """Sentences of `text`, by rule: they end at . ! or ? (and closing quotes or brackets) before a
    capital or a digit, except after a common abbreviation or a single capital letter."""
    sentences, start = [], 0
    for match in BOUNDARY.finditer(text):
        sentence = text[start : match.start(1)]
        if not ABBREVIATION.fullmatch(sentence):
            sentences.append(sentence)
            start = match.end(1)
    return [*sentences, text[start:]]
