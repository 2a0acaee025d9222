"""Metrics by name, for tasks on the user's own data. All work offline and are in percent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from unipeft_run.config.messages import unknown_choice
from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics.classification import Confusion, accuracy
from unipeft_run.evaluation.metrics.correlation import pearson, spearman
from unipeft_run.evaluation.metrics.retrieval import LOWER as LOWER_IN_RETRIEVAL
from unipeft_run.evaluation.metrics.scores import Scores, exact_mean, mean
from unipeft_run.evaluation.metrics.summaries import ROUGES, rouge_per_example, rouge_signatures
from unipeft_run.evaluation.metrics.translation import TOKENIZERS, bleu_paper

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacrebleuMetric

Kind = Literal["texts", "classes", "numbers"]


@dataclass(frozen=True)
class Outputs:
    """Predictions to score against their references. `language`: of the texts, such as "de"."""

    predictions: Sequence[Any]
    references: Sequence[Any]
    language: str | None = None
    rouge_tokenizer: str | None = "unicode"


@dataclass(frozen=True)
class Result:
    """One metric: the corpus score, how it was computed, and a score per prediction."""

    score: float
    signature: str
    per_example: list[float]
    per_example_signature: str | None = None  # if it differs


@dataclass(frozen=True)
class NamedMetric:
    kind: Kind
    compute: Callable[[Outputs], Result] = field(repr=False)
    lower_is_better: bool = False


def check_names(names: Sequence[str], kind: Kind) -> None:
    """Raise `UserError` unless every name is a metric of this kind."""
    known = [name for name, metric in METRICS.items() if metric.kind == kind]
    if not names:
        raise UserError(f"task.metric is empty; choose from {', '.join(known)}")
    for name in names:
        if name in METRICS and name not in known:
            raise UserError(
                f"task.metric={name} compares {METRICS[name].kind}, and this task predicts {kind}; "
                f"choose from {', '.join(known)}"
            )
        if name not in known:
            raise UserError(unknown_choice("task.metric", name, known))


def is_lower_better(name: str) -> bool:
    """Return whether lower scores of the metric `name` are better, as for ter or test/ter."""
    metric = METRICS.get(name.rpartition("/")[2])
    if name.endswith(LOWER_IN_RETRIEVAL):
        return True
    return metric is not None and metric.lower_is_better


def score(names: Sequence[str], outputs: Outputs) -> Scores:
    """Compute the metrics `names`; the scores per example are those of the first."""
    results = {name: METRICS[name].compute(outputs) for name in names}
    first = results[names[0]]
    signatures = {name: result.signature for name, result in results.items()}
    per_example = f"{names[0]}: {first.per_example_signature or first.signature}"
    return Scores(
        {name: result.score for name, result in results.items()},
        first.per_example,
        {**signatures, "per_example": per_example},
    )


def _sacrebleu(outputs: Outputs, corpus: SacrebleuMetric, sentence: SacrebleuMetric) -> Result:
    pairs = zip(outputs.predictions, outputs.references, strict=True)
    per_example = [float(sentence.sentence_score(p, [r]).score) for p, r in pairs]
    mean(per_example)  # raises if there is nothing to score
    total = corpus.corpus_score(outputs.predictions, [outputs.references]).score
    signature, other = str(corpus.get_signature()), str(sentence.get_signature())
    return Result(float(total), signature, per_example, other)


def _bleu(outputs: Outputs) -> Result:
    from sacrebleu.metrics.bleu import BLEU

    tokens = TOKENIZERS.get(outputs.language or "")
    corpus, sentence = BLEU(tokenize=tokens), BLEU(tokenize=tokens, effective_order=True)
    return _sacrebleu(outputs, corpus, sentence)


def _bleu_paper(outputs: Outputs) -> Result:
    chrf = _chrf(outputs)
    total, signature = bleu_paper(outputs.predictions, outputs.references)
    return Result(total, signature, chrf.per_example, f"chrf: {chrf.signature}")


def _chrf(outputs: Outputs, word_order: int = 0) -> Result:
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF(word_order=word_order)
    return _sacrebleu(outputs, metric, metric)


def _chrf_plus_plus(outputs: Outputs) -> Result:
    return _chrf(outputs, word_order=2)


def _ter(outputs: Outputs) -> Result:
    from sacrebleu.metrics.ter import TER

    metric = TER()
    return _sacrebleu(outputs, metric, metric)


def _rouge(name: str) -> Callable[[Outputs], Result]:
    def compute(outputs: Outputs) -> Result:
        tokenizer = outputs.rouge_tokenizer
        values = rouge_per_example(outputs.predictions, outputs.references, tokenizer)[name]
        return Result(mean(values), rouge_signatures(tokenizer)[name], values)

    return compute


def _exact_match(outputs: Outputs) -> Result:
    pairs = zip(outputs.predictions, outputs.references, strict=True)
    values = [100.0 * (p.strip() == r.strip()) for p, r in pairs]
    return Result(mean(values), "equal texts, without surrounding space (%)", values)


def _classes(signature: str, compute: Callable[[Confusion], float | Fraction]) -> NamedMetric:
    """Make a metric of classes, whose score per example is 100 or 0."""

    def of_outputs(outputs: Outputs) -> Result:
        hits = accuracy(outputs.predictions, outputs.references)
        value = compute(Confusion(outputs.predictions, outputs.references))
        return Result(
            float(100 * value), signature, hits.per_example, hits.signatures["per_example"]
        )

    return NamedMetric("classes", of_outputs)


def _numbers(signature: str, compute: Callable[..., float]) -> NamedMetric:
    """Make a correlation of numbers; the score per example is its squared error."""

    def of_outputs(outputs: Outputs) -> Result:
        pairs = zip(outputs.predictions, outputs.references, strict=True)
        errors = [float(p - r) ** 2 for p, r in pairs]
        mean(errors)  # raises if there is nothing to score
        value = compute(outputs.predictions, outputs.references)
        return Result(100.0 * value, signature, errors, "squared error")

    return NamedMetric("numbers", of_outputs)


MACRO = "mean over the classes that occur (%)"
METRICS: Mapping[str, NamedMetric] = {
    "bleu": NamedMetric("texts", _bleu),
    "bleu_paper": NamedMetric("texts", _bleu_paper),
    "chrf": NamedMetric("texts", _chrf),
    "chrf++": NamedMetric("texts", _chrf_plus_plus),
    "ter": NamedMetric("texts", _ter, lower_is_better=True),
    **{name: NamedMetric("texts", _rouge(name)) for name in ROUGES},
    "exact_match": NamedMetric("texts", _exact_match),
    "accuracy": _classes("accuracy (%)", lambda c: c.weighted(c.recalls)),
    "f1": _classes("F1 of the second class (%)", lambda c: c.f1s.get(1, Fraction())),
    "f1_macro": _classes(f"F1, {MACRO}", lambda c: exact_mean([*c.f1s.values()])),
    "f1_weighted": _classes("F1, weighted by examples (%)", lambda c: c.weighted(c.f1s)),
    "precision_macro": _classes(
        f"precision, {MACRO}", lambda c: exact_mean([*c.precisions.values()])
    ),
    "recall_macro": _classes(f"recall, {MACRO}", lambda c: exact_mean([*c.recalls.values()])),
    "matthews": _classes("Matthews correlation x 100", lambda c: c.matthews),
    "pearson": _numbers("Pearson correlation x 100", pearson),
    "spearman": _numbers("Spearman rank correlation x 100", spearman),
}
