"""Per-example statistics of stored runs, for the tests in `significance.py`.

A metric that is the mean of the stored per-example scores is tested on those. BLEU and chrF are
recomputed from the stored predictions. Either way the result must equal the recorded metric, so
that a test always concerns the metric in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from unipeft_run.errors import UserError
from unipeft_run.report.differences import as_mapping
from unipeft_run.report.significance import Array, Sample, make_mean
from unipeft_run.runs.printable import printable
from unipeft_run.runs.reader import RunRecord, is_number
from unipeft_run.runs.reading import UnreadableFile

EXACT = 1e-4  # points by which a recomputed metric may differ from the recorded one
ORDER = 4  # longest n-grams of BLEU
TOKENIZERS = ("13a", "none", "intl", "char", "zh")  # that need neither a download nor a package
ROMANIAN = "norm:moses-ro"  # in the signature of the paper's protocol
BETA = 2  # chrF weights recall twice as much as precision


class UntestableError(UserError):
    """A run or metric cannot be used in a significance test; the message gives the reason."""


Keys = tuple[tuple[str, str], ...]  # id and reference of each example


def read_pooled(runs: Sequence[RunRecord], metric: str) -> tuple[Keys, Sample]:
    """Read the test examples of a configuration's runs, statistics averaged over its seeds.

    Raises `UntestableError`, also if the seeds were scored on different examples.
    """
    (keys, first), *others = [read_sample(run, metric) for run in runs]
    if any(other != keys for other, _ in others):
        raise UntestableError(f"{runs[0].label}: its seeds were scored on different examples")
    values = np.mean([first.values, *(sample.values for _, sample in others)], axis=0)
    return keys, Sample(values, first.score)


def read_sample(run: RunRecord, metric: str) -> tuple[Keys, Sample]:
    """Read the test predictions of `run`, scored with `metric`. Raises `UntestableError`."""
    rows = _read_rows(run)
    sample = _make_sample(run, metric, rows)
    recorded = run.metrics.get(f"test/{metric}")
    if recorded is None or not is_number(recorded) or abs(sample.total - recorded) > EXACT:
        raise UntestableError(
            f"{run.label}: its predictions score {sample.total:.2f} {printable(metric, 60)}, "
            f"but metrics.json says {printable(recorded, 60)}"
        )
    return tuple((row["id"], row["reference"]) for row in rows), sample


def _read_rows(run: RunRecord) -> list[dict[str, Any]]:
    """Read predictions/test.jsonl. Raises `UntestableError` if it is missing or damaged."""
    try:
        rows = list(run.predictions("test"))
    except UnreadableFile as error:
        raise UntestableError(f"{run.label}: {error}") from None
    if not rows:
        raise UntestableError(f"{run.label}: there is no predictions/test.jsonl")
    texts = ("id", "prediction", "reference")
    if not all(isinstance(row.get(name), str) for row in rows for name in texts):
        raise UntestableError(f"{run.label}: predictions/test.jsonl is damaged")
    return rows


def _make_sample(run: RunRecord, metric: str, rows: Sequence[dict[str, Any]]) -> Sample:
    signatures = as_mapping(run.metrics.get("signatures"))
    if metric in UNTESTED:
        raise UntestableError(
            f"{run.label}: {metric} cannot be tested: it is not a mean over examples"
        )
    if metric in CORPUS_METRICS:
        try:
            return CORPUS_METRICS[metric](rows, str(signatures.get(metric, "")))
        except UntestableError as error:
            raise UntestableError(f"{run.label}: {error}") from None
    scores = [row.get("score") for row in rows]
    stored, signature = _name_scores(signatures)
    is_stored = metric == stored if stored else signature == signatures.get(metric, "")
    if not is_stored or not all(map(is_number, scores)):
        found = printable(stored or signature or "no metric", 60)
        raise UntestableError(
            f"{run.label}: {printable(metric, 60)} cannot be tested: its predictions store "
            f"per-example scores of {found}"
        )
    return make_mean([float(score) for score in scores if score is not None])


def _name_scores(signatures: Mapping[str, Any]) -> tuple[str, str]:
    """Return which metric the per-example scores have, "" if unnamed, and their signature.

    `rouge2: <its signature>` are scores of rouge2, `f1: accuracy (%)` are scores of accuracy.
    """
    per_example = str(signatures.get("per_example", ""))
    name, _, rest = per_example.partition(": ")
    if name not in signatures:
        return "", per_example
    return (name if signatures[name] == rest else ""), rest


def _count_ngrams(rows: Sequence[dict[str, Any]], signature: str) -> Sample:
    """Make the sample of BLEU: lengths and n-gram counts, as sacreBLEU sums them."""
    from sacrebleu.metrics.bleu import BLEU

    fields = dict(part.split(":", 1) for part in signature.split("|") if ":" in part)
    tokenizer, smoothing = fields.get("tok", "?"), fields.get("smooth", "?")
    if tokenizer not in TOKENIZERS or smoothing not in ("exp", "none"):
        raise UntestableError(f"BLEU with the signature {printable(signature, 120)} is not tested")
    texts = [[row[side] for row in rows] for side in ("prediction", "reference")]
    if ROMANIAN in signature:
        from unipeft_run.evaluation.metrics.romanian import tokenize_romanian

        texts = [list(map(tokenize_romanian, side)) for side in texts]
    metric = BLEU(tokenize=tokenizer, smooth_method=smoothing, force=True)
    counts = metric._extract_corpus_statistics(texts[0], [texts[1]])
    return Sample(np.array(counts, dtype=float), partial(score_bleu, smooth=smoothing == "exp"))


def score_bleu(sums: Array, smooth: bool) -> Array:
    """Compute BLEU from summed statistics [..., 2 + 2 * ORDER], as sacreBLEU's `compute_bleu`.

    `smooth`: halve the precision of each further order without a match ("exp").
    """
    lengths, references = sums[..., 0], sums[..., 1]
    correct, total = sums[..., 2 : 2 + ORDER], sums[..., 2 + ORDER :]
    misses = 2.0 ** np.cumsum(correct == 0, axis=-1)
    matched = np.where(correct > 0, correct, 1 / misses if smooth else 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(total > 0, matched / total, 0.0)
        penalty = np.exp(np.minimum(0.0, 1 - references / lengths))
        score = 100 * penalty * np.exp(np.log(precisions).mean(axis=-1))
    return np.where((correct.sum(axis=-1) > 0) & (lengths > 0), score, 0.0)


def _count_characters(rows: Sequence[dict[str, Any]], signature: str) -> Sample:
    """Make the sample of chrF: counts of character n-grams in prediction, reference and both."""
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    predictions, references = ([row[side] for row in rows] for side in ("prediction", "reference"))
    counts = metric._extract_corpus_statistics(predictions, [references])
    return Sample(np.array(counts, dtype=float), score_chrf)


def score_chrf(sums: Array) -> Array:
    """Compute chrF from summed statistics [..., 3 * orders], as sacreBLEU without eps smoothing."""
    predicted, reference, matched = (sums[..., place::3] for place in range(3))
    known = (predicted > 0) & (reference > 0)
    orders = np.maximum(known.sum(axis=-1), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(known, matched / predicted, 0.0).sum(axis=-1) / orders
        recall = np.where(known, matched / reference, 0.0).sum(axis=-1) / orders
        score = 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)
    return np.where(precision + recall > 0, score, 0.0)


CORPUS_METRICS: dict[str, Callable[[Sequence[dict[str, Any]], str], Sample]] = {
    "bleu": _count_ngrams,
    "bleu_paper": _count_ngrams,
    "chrf": _count_characters,
}
UNTESTED = ("chrf++", "ter")  # corpus metrics that are not recomputed
