"""BLEU in two protocols, and chrF."""

from __future__ import annotations

from collections.abc import Sequence

from unipeft_run.evaluation.metrics.scores import Scores, mean

PROTOCOL = "moses-ro-2019-11,no-diacritics,no-escape"  # what `romanian.tokenize_romanian` does


def bleu(predictions: Sequence[str], references: Sequence[str]) -> Scores:
    """BLEU twice and chrF; chrF per example.

    `bleu` is sacreBLEU's default, on the texts as they are. `bleu_paper` is the protocol of the
    paper's Romanian tables: both sides through `tokenize_romanian`, then BLEU of the tokens. On the
    same output it is about ten points higher.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    from unipeft_run.evaluation.metrics.romanian import tokenize_romanian

    default, chrf = BLEU(), CHRF()
    paper = BLEU(tokenize="none", smooth_method="none", force=True)
    per_example = [
        chrf.sentence_score(prediction, [reference]).score
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    mean(per_example)  # nothing to score is an error
    tokens = [[tokenize_romanian(text) for text in texts] for texts in (predictions, references)]
    scores = {
        "bleu": default.corpus_score(predictions, [references]).score,
        "bleu_paper": paper.corpus_score(tokens[0], [tokens[1]]).score,
        "chrf": chrf.corpus_score(predictions, [references]).score,
    }
    signatures = {
        "bleu": str(default.get_signature()),
        "bleu_paper": f"{paper.get_signature()}|norm:{PROTOCOL}",
        "chrf": str(chrf.get_signature()),
    }
    return Scores(scores, per_example, {**signatures, "per_example": f"chrf: {signatures['chrf']}"})
