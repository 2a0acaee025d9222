"""Scores of predictions, in percent, each metric with a signature that says how it was computed.

Nothing here needs a network: no nltk data, no `evaluate.load`. The scorers are imported where they
are used: they take seconds, and a task is made and its data checked without them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
TITLES = "mr|mrs|ms|dr|prof|st|jr|sr|gen|sen|rep|rev|vs|etc|inc|ltd|co|e\\.g|i\\.e"
ABBREVIATION = re.compile(rf"(?:.*\s)?[\"'(\[]*(?:(?i:{TITLES})|No|[A-Z])\.", re.DOTALL)
BOUNDARY = re.compile(r"[.!?][\"')\]]*(\s+)(?=[\"'(\[]*[A-Z0-9])")
# normalise-romanian.py and remove-diacritics.py of wmt16-scripts: cedilla to comma below, then
# to the plain letter
DIACRITICS = str.maketrans(
    "\u015e\u015f\u0162\u0163\u0218\u0219\u021a\u021b\u0102\u0103\u00c2\u00e2\u00ce\u00ee",
    "SsTtSsTtAaAaIi",
)


@dataclass(frozen=True)
class Scores:
    """`metrics` of the corpus, one number in `per_example` for each prediction, `signatures` by
    metric (and "per_example")."""

    metrics: dict[str, float]
    per_example: list[float]
    signatures: dict[str, str]


def accuracy(predictions: Sequence[int], references: Sequence[int]) -> Scores:
    """The share of equal pairs."""
    hits = [100.0 * (p == r) for p, r in zip(predictions, references, strict=True)]
    signature = "share of equal classes, percent"
    return Scores(
        {"accuracy": mean(hits)}, hits, dict.fromkeys(("accuracy", "per_example"), signature)
    )


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


def bleu(predictions: Sequence[str], references: Sequence[str]) -> Scores:
    """BLEU twice and chrF; chrF per example.

    `bleu` is sacreBLEU's default, on the texts as they are. `bleu_paper` is the protocol of the
    paper's Romanian tables: both sides through `moses_romanian`, then BLEU of the tokens. On the
    same output it is about ten points higher.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    default, chrf = BLEU(), CHRF()
    paper = BLEU(tokenize="none", smooth_method="none", force=True)
    tokens = [[moses_romanian(text) for text in texts] for texts in (predictions, references)]
    scores = {
        "bleu": default.corpus_score(predictions, [references]).score,
        "bleu_paper": paper.corpus_score(tokens[0], [tokens[1]]).score,
        "chrf": chrf.corpus_score(predictions, [references]).score,
    }
    per_example = [
        chrf.sentence_score(prediction, [reference]).score
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    normalised = f"sacremoses {version('sacremoses')} ro, no diacritics"
    signatures = {
        "bleu": str(default.get_signature()),
        "bleu_paper": f"{paper.get_signature()}|norm:{normalised}",
        "chrf": str(chrf.get_signature()),
    }
    return Scores(scores, per_example, {**signatures, "per_example": f"chrf: {signatures['chrf']}"})


@cache
def _moses() -> tuple[Callable[[str], str], Callable[..., str]]:
    """The Python ports of the Moses scripts, made once: their tables are slow to build."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normalizer = MosesPunctNormalizer(
        "ro", pre_replace_unicode_punct=True, post_remove_control_chars=True
    )
    return normalizer.normalize, MosesTokenizer("ro").tokenize


def moses_romanian(text: str) -> str:
    """`text` as the paper's romanian_postprocess.sh leaves it: normalised, plain letters, tokens.

    NOTE: sacremoses stands in for the Perl scripts and departs from them in rare places (a full
    stop after a final abbreviation, for one).
    """
    normalize, tokenize = _moses()
    return tokenize(normalize(text).translate(DIACRITICS), escape=False, return_str=True)


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


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; ValueError for none at all."""
    if not values:
        raise ValueError("no predictions to score")
    return sum(values) / len(values)
