"""Metrics by name: against the libraries, by hand, and refusals."""

from __future__ import annotations

from math import sqrt

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics.by_name import (
    METRICS,
    Outputs,
    check_names,
    is_lower_better,
    score,
)

PREDICTED = ["the cat sat on the mat", "a dog barks loudly", ""]
EXPECTED = ["the cat sat on a mat", "the dog barked", "it rains"]
TEXTS = Outputs(PREDICTED, EXPECTED)
CLASSES = Outputs([0, 1, 1, 2, 0, 1], [0, 1, 2, 2, 1, 1])


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("bleu", sacrebleu.BLEU()),
        ("chrf", sacrebleu.CHRF()),
        ("chrf++", sacrebleu.CHRF(word_order=2)),
        ("ter", sacrebleu.TER()),
    ],
)
def test_scores_of_translations_are_those_of_sacrebleu(name: str, metric: sacrebleu.BLEU) -> None:
    found = score([name], TEXTS)
    assert found.metrics[name] == metric.corpus_score(PREDICTED, [EXPECTED]).score
    assert found.signatures[name] == str(metric.get_signature())
    assert len(found.per_example) == 3


def test_rouge_is_that_of_rouge_score() -> None:
    scorer = RougeScorer(["rouge1"], use_stemmer=True)
    pairs = zip(PREDICTED, EXPECTED, strict=True)
    values = [100 * scorer.score(r, p)["rouge1"].fmeasure for p, r in pairs]
    found = score(["rouge1", "exact_match"], TEXTS)
    assert found.per_example == pytest.approx(values)
    assert found.metrics == {"rouge1": pytest.approx(sum(values) / 3), "exact_match": 0.0}


def test_scores_of_classes_by_hand() -> None:
    # class 0: 1 hit, 2 predicted, 1 actual; class 1: 2, 3, 3; class 2: 1, 1, 2
    f1s = 2 / 3, 4 / 6, 2 / 3
    names = [name for name, metric in METRICS.items() if metric.kind == "classes"]
    found = score(names, CLASSES).metrics
    expected = {
        "accuracy": 4 / 6,
        "f1": f1s[1],
        "f1_macro": sum(f1s) / 3,
        "f1_weighted": (f1s[0] + 3 * f1s[1] + 2 * f1s[2]) / 6,
        "precision_macro": (1 / 2 + 2 / 3 + 1) / 3,
        "recall_macro": (1 + 2 / 3 + 1 / 2) / 3,
        "matthews": (4 * 6 - (2 * 1 + 3 * 3 + 1 * 2)) / sqrt((36 - 14) * (36 - 14)),
    }
    assert found == {name: pytest.approx(100 * value) for name, value in expected.items()}


def test_equal_scores_are_equal_floats() -> None:
    references = [0] * 3 + [1] * 7 + [2] * 11 + [3] * 13
    rotated = [(label + 1) % 4 for label in references]
    found = set()
    for wrong in range(0, 30, 5):  # always four errors, in other classes
        predictions = list(references)
        predictions[wrong : wrong + 4] = rotated[wrong : wrong + 4]
        found.add(score(["accuracy"], Outputs(predictions, references)).metrics["accuracy"])
    assert found == {100 * 30 / 34}
    # the classes renumbered: the sums have the same terms in another order
    predictions = [(3 * label + place) % 4 for place, label in enumerate(references)]
    names = [n for n, m in METRICS.items() if m.kind == "classes" and n != "f1"]
    results = {
        tuple(
            score(
                names, Outputs(*([c ^ flip for c in side] for side in (predictions, references)))
            ).metrics.values()
        )
        for flip in range(4)
    }
    assert len(results) == 1


def test_matthews_of_one_class_is_zero() -> None:
    assert score(["matthews"], Outputs([1, 1], [1, 1])).metrics["matthews"] == 0.0


def test_scores_per_example_are_those_of_the_first_metric() -> None:
    found = score(["exact_match", "chrf"], Outputs(["a", "b"], ["a", "c"]))
    assert found.per_example == [100.0, 0.0]
    assert found.signatures["per_example"].startswith("exact_match: ")


def test_only_error_rates_are_better_when_lower() -> None:
    assert [name for name in METRICS if is_lower_better(name)] == ["ter"]
    assert is_lower_better("test/ter")


@pytest.mark.parametrize(
    ("names", "kind", "sentence"),
    [
        (["chfr"], "texts", r"chfr is unknown \(did you mean chrf\?\)"),
        (["BLEU"], "texts", r"did you mean bleu\?"),
        (["accuracy"], "texts", "accuracy compares classes, and this task predicts texts"),
        ([], "classes", "task.metric is empty; choose from accuracy"),
    ],
)
def test_wrong_names_are_refused(names: list[str], kind: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_names(names, kind)  # type: ignore[arg-type]
