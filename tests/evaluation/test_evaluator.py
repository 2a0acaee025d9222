"""The evaluator's results do not depend on batches, processes or the model's own files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_text
import torch
from tiny_evaluators import (
    PAIRS,
    SOURCES,
    assemble,
    classifier,
    summariser,
    write,
)

from unipeft_run.data.tasks.mnli import MNLI
from unipeft_run.data.tasks.splits import Companion
from unipeft_run.data.tasks.xsum import XSum
from unipeft_run.evaluation import evaluator as module
from unipeft_run.evaluation.generation import onednn
from unipeft_run.training.losses import ClassificationLoss


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))


# Classes


def test_classification_equals_evaluating_examples_one_by_one(tmp_path: Path) -> None:
    evaluator, model = classifier(tmp_path)
    result = evaluator(model, "test")
    tokenizer, names = evaluator.step.tokenizer, ("negative", "positive")
    losses, hits = [], []
    for number, (row, source) in enumerate(zip(result.rows, SOURCES, strict=True)):
        logits = model(**tokenizer(source, return_tensors="pt")).logits
        label = torch.tensor([number % 2])
        losses.append(torch.nn.functional.cross_entropy(logits, label).item())
        hits.append(logits.argmax().item() == number % 2)
        assert row == {
            "id": str(100 + number),
            "prediction": names[logits.argmax()],
            "reference": names[number % 2],
            "score": 100.0 * hits[-1],
        }
    assert 0 < sum(hits) < 9
    assert len({row["prediction"] for row in result.rows}) == 2
    assert result.metrics["accuracy"] == pytest.approx(100 * sum(hits) / 9)
    assert result.metrics["loss"] == pytest.approx(sum(losses) / 9, abs=1e-5)


def test_the_validation_loss_of_classes_is_smoothed_as_in_training(tmp_path: Path) -> None:
    plain, model = classifier(tmp_path)
    smoothed, _ = assemble(plain.task, plain.step.tokenizer, None, ClassificationLoss(0.4))
    logits = model(**plain.step.tokenizer(SOURCES, return_tensors="pt", padding=True)).logits
    log_probs = logits.log_softmax(-1)
    nll = plain(model, "test").metrics["loss"]
    expected = 0.6 * nll - 0.4 * log_probs.mean().item()
    assert smoothed(model, "test").metrics["loss"] == pytest.approx(expected, abs=1e-5)
    assert abs(expected - nll) > 1e-4


def test_the_limit_takes_the_first_examples(tmp_path: Path) -> None:
    evaluator, model = classifier(tmp_path)
    assert evaluator(model, "test", 5).rows == evaluator(model, "test").rows[:5]


def test_mnli_reports_matched_first_1600_and_mismatched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MNLI.companions["test"]["first_1600"] == Companion("test", 1600)
    rows = [{"premise": s, "hypothesis": t, "label": i % 3} for i, (s, t) in enumerate(PAIRS)]
    other = [{**row, "label": 0} for row in rows[:4]]
    (tmp_path / "validation_mismatched.jsonl").write_text("\n".join(map(json.dumps, other)))
    task = MNLI(name="mnli", path=write(tmp_path, rows), max_source_length=64)
    tokenizer, loss = tiny_text.bart_tokenizer(), ClassificationLoss()
    evaluator, _ = assemble(task, tokenizer, None, loss)
    model = tiny_text.roberta(len(tokenizer), 3)
    whole = evaluator(model, "test").metrics
    # the split has fewer than 1,600 examples, so first_1600 is left out
    assert set(whole) == {f"{n}{m}" for n in ("loss", "accuracy") for m in ("", "_mismatched")}
    mismatched = evaluator(model, "validation_mismatched").metrics
    assert whole["accuracy_mismatched"] == mismatched["accuracy"]
    part = {"first_1600": Companion("test", 5)}
    monkeypatch.setattr(MNLI, "companions", {"test": part})
    result = evaluator(model, "test")
    first = [row["score"] for row in result.rows[:5]]
    assert result.metrics["accuracy_first_1600"] == pytest.approx(sum(first) / 5)
    assert result.metrics["accuracy"] == whole["accuracy"]
    assert set(evaluator(model, "validation").metrics) == {"loss", "accuracy"}


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_is_restored(training: bool, tmp_path: Path) -> None:
    evaluator, model = classifier(tmp_path)
    model.train(training)
    metrics = [evaluator(model, "test").metrics for _ in range(2)]
    assert model.training is training
    assert metrics[0] == metrics[1]  # no dropout in either
    assert not any(p.grad is not None for p in model.parameters())


def test_progress_counts_examples(tmp_path: Path) -> None:
    seen: list[Any] = []

    @contextmanager
    def progress(description: str, total: int) -> Iterator[Any]:
        seen.append((description, total))
        yield seen.append

    evaluator, model = classifier(tmp_path, progress=progress)
    evaluator(model, "validation")
    assert seen == [("validation", 9), 4, 5]


def test_batches_of_short_sources_are_larger(tmp_path: Path) -> None:
    evaluator, _ = summariser(tmp_path)
    documents = ["cat " * 30] * 4 + ["cat"] * 16
    rows = [{"document": text, "summary": "cat"} for text in documents]
    task = XSum(
        name="xsum",
        path=write(tmp_path, rows),
        max_source_length=32,
        max_target_length=12,
        eval_target_length=5,
    )
    splits = task.load()
    encoded = task.encode(splits, evaluator.step.tokenizer)["test"]
    # with 3 beams of 12 tokens: 32 + 36 positions at most, 8 + 36 for a short source
    generating = [len(batch) for batch in evaluator.step.plan_batches(encoded, 4, True)]
    assert generating == [4, 6, 6, 4]
    # without: 3 target tokens; 32 + 3 and 8 + 3
    assert [len(batch) for batch in evaluator.step.plan_batches(encoded, 4, False)] == [4, 12, 4]


def test_two_processes_give_the_results_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, model = classifier(tmp_path, batch_size=1)
    alone = evaluator(model, "test")
    parts: list[Any] = []
    gather = parts.extend
    monkeypatch.setattr(module, "gather_object", lambda own: gather(own) or parts)
    for rank in range(2):
        state = SimpleNamespace(process_index=rank, num_processes=2)
        monkeypatch.setattr(module, "PartialState", lambda state=state: state)
        if rank == 0:
            with pytest.raises(KeyError):  # the other process's examples are still missing
                evaluator(model, "test")
    both = evaluator(model, "test")
    assert [len(part.predictions) for part in parts] == [6, 3]
    assert both.rows == alone.rows
    assert both.metrics == pytest.approx(alone.metrics)


@pytest.mark.parametrize("build", [classifier, summariser])
def test_products_through_onednn_give_the_same_results(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, model = build(tmp_path)
    monkeypatch.setattr(onednn, "_supported_types", lambda device: ())
    plain = evaluator(model, "test")
    monkeypatch.undo()
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(onednn, "_has_avx512", lambda: True)
    product, calls = onednn.Product.__call__, []
    monkeypatch.setattr(
        onednn.Product, "__call__", lambda self, x: calls.append(x.shape) or product(self, x)
    )
    result = evaluator(model, "test")
    assert calls
    assert result.metrics == pytest.approx(plain.metrics, rel=1e-5)
    assert result.rows == plain.rows
    assert not any("forward" in vars(child) for child in model.modules())


# Text
