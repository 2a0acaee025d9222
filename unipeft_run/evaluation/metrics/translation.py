"""BLEU and chrF: sacreBLEU's own, and the paper's Romanian protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unipeft_run.evaluation.metrics.scores import Scores, mean

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

PROTOCOL = "moses-ro-2019-11,no-diacritics,no-escape"  # names the steps of `tokenize_romanian`
# sacreBLEU's tokenisers for mBART's languages that put no spaces between words; others take 13a
TOKENIZERS = {"zh": "zh", "ja": "char", "my": "char"}


def bleu(
    predictions: Sequence[str], references: Sequence[str], target_language: str = "ro"
) -> Scores:
    """Compute BLEU and chrF of translations into `target_language`; chrF per example.

    `bleu` is sacreBLEU's on the raw texts. `bleu_paper`, for Romanian only, follows the protocol of
    the paper's tables: `tokenize_romanian` on both sides, then BLEU of the tokens. It is about ten
    points higher on the same output.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    raw, chrf = BLEU(tokenize=TOKENIZERS.get(target_language)), CHRF()
    per_example = [
        chrf.sentence_score(prediction, [reference]).score
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    mean(per_example)  # raises if there is nothing to score
    scores = {"bleu": _corpus_score(raw, predictions, references)}
    signatures = {"bleu": str(raw.get_signature())}
    if target_language == "ro":
        scores["bleu_paper"], signatures["bleu_paper"] = bleu_paper(predictions, references)
    else:
        signatures["bleu"] += f"|norm:none|target:{target_language}"
    scores["chrf"] = chrf.corpus_score(predictions, [references]).score
    signatures["chrf"] = str(chrf.get_signature())
    return Scores(scores, per_example, {**signatures, "per_example": f"chrf: {signatures['chrf']}"})


def bleu_paper(predictions: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """Compute BLEU of Romanian text in the paper's protocol; return it with its signature."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    score = _corpus_score(metric, *_romanian_tokens(predictions, references))
    return score, f"{metric.get_signature()}|norm:{PROTOCOL}"


def _corpus_score(metric: BLEU, predictions: Sequence[str], references: Sequence[str]) -> float:
    return float(metric.corpus_score(predictions, [references]).score)


def _romanian_tokens(*sides: Sequence[str]) -> list[list[str]]:
    from unipeft_run.evaluation.metrics.romanian import tokenize_romanian

    return [[tokenize_romanian(text) for text in texts] for texts in sides]
