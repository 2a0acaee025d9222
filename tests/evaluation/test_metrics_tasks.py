"""The metrics that a task reports, and its primary metric."""

from __future__ import annotations

import pytest

from unipeft_run.data.tasks.wmt16_en_ro import WMT16EnRo
from unipeft_run.data.tasks.xsum import XSum

LENGTHS = {"max_source_length": 8, "max_target_length": 8, "eval_target_length": 8}
TEXTS = ["\u201eEl\u2019a spus etc."]


@pytest.mark.parametrize(
    ("language", "code", "target"),
    [
        ("de", "de_DE", "de"),
        ("de", "ro_RO", "de"),  # only the column was named
        ("ro", "de_DE", "de"),  # only the code was given
        ("en", "en_XX", "en"),
        ("zh", "zh_CN", "zh"),
        ("target", "ro_RO", "target"),
    ],
)
def test_other_targets_than_romanian_get_plain_bleu(language: str, code: str, target: str) -> None:
    task = WMT16EnRo(name="mt", target_language=language, target_code=code, **LENGTHS)
    scores = task.score(TEXTS, TEXTS)
    assert task.primary == "bleu"
    assert set(scores.metrics) == {"bleu", "chrf"}
    assert scores.signatures["bleu"].endswith(f"|norm:none|target:{target}")


def test_romanian_targets_get_the_papers_bleu() -> None:
    task = WMT16EnRo(name="mt", **LENGTHS)
    assert task.primary == "bleu_paper"
    assert task.primary in task.score(TEXTS, TEXTS).metrics


@pytest.mark.parametrize(("tokenizer", "score"), [(None, 0.0), ("unicode", 100.0)])
def test_rouge_tokenizer_of_summaries(tokenizer: str | None, score: float) -> None:
    texts = ["\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440"]
    task = XSum(name="xsum", rouge_tokenizer=tokenizer, **LENGTHS)
    assert task.score(texts, texts).metrics[task.primary] == pytest.approx(score)
