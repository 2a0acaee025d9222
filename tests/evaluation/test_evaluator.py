"""The evaluator's results do not depend on batches, processes or the model's own files."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_text
import torch

from unipeft_run.config.schema import DecodingConfig
from unipeft_run.data.batching import Collator
from unipeft_run.data.tasks.mnli import MNLI
from unipeft_run.data.tasks.splits import Companion
from unipeft_run.data.tasks.sst2 import SST2
from unipeft_run.data.tasks.wmt16_en_ro import WMT16EnRo
from unipeft_run.data.tasks.xsum import XSum
from unipeft_run.evaluation import evaluator as module
from unipeft_run.evaluation.evaluator import Evaluator
from unipeft_run.evaluation.generation import generate, onednn
from unipeft_run.training.losses import ClassificationLoss, SequenceLoss

SENTENCE = "the cat sat on a mat and dogs show weather in every terminal package"
WORDS = SENTENCE.split()
SOURCES = [" ".join(WORDS[i : i + 3 + i % 5]) for i in range(9)]
TARGETS = [" ".join(WORDS[i : i + 1 + i % 4]) for i in range(9)]
PAIRS = list(zip(SOURCES, TARGETS, strict=True))
BEAMS = DecodingConfig(num_beams=3, max_length=12, min_length=4, no_repeat_ngram_size=2)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def classifier(folder: Path, **settings: Any) -> tuple[Evaluator, Any]:
    rows = [{"sentence": s, "label": i % 2, "idx": 100 + i} for i, s in enumerate(SOURCES)]
    task = SST2(name="sst2", path=write(folder, rows), max_source_length=32)
    return assemble(task, tiny_text.bart_tokenizer(), None, ClassificationLoss(), **settings)


def summariser(folder: Path, **settings: Any) -> tuple[Evaluator, Any]:
    rows = [{"document": s, "summary": t} for s, t in zip(SOURCES, TARGETS, strict=True)]
    lengths = {"max_source_length": 32, "max_target_length": 12, "eval_target_length": 5}
    task = XSum(name="xsum", path=write(folder, rows), **lengths)
    settings = {"decoding": BEAMS, **settings}
    return assemble(task, tiny_text.bart_tokenizer(), 2, SequenceLoss(0.1), **settings)


def assemble(
    task: Any, tokenizer: Any, start: Any, loss_fn: Any, **settings: Any
) -> tuple[Evaluator, Any]:
    splits = task.load()
    evaluator = Evaluator(
        task,
        splits,
        task.encode(splits, tokenizer),
        tokenizer,
        collator=Collator(tokenizer.pad_token_id, start),
        loss_fn=loss_fn,
        **{"batch_size": 4, **settings},
    )
    size = len(tokenizer)
    return evaluator, tiny_text.bart(size) if start else tiny_text.roberta(size, 2)


# Classes


def test_classification_equals_evaluating_examples_one_by_one(tmp_path: Path) -> None:
    evaluator, model = classifier(tmp_path)
    result = evaluator(model, "test")
    tokenizer, names = evaluator.tokenizer, ("negative", "positive")
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
    smoothed, _ = assemble(plain.task, plain.tokenizer, None, ClassificationLoss(0.4))
    logits = model(**plain.tokenizer(SOURCES, return_tensors="pt", padding=True)).logits
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
    encoded = task.encode(splits, evaluator.tokenizer)["test"]
    # with 3 beams of 12 tokens: 32 + 36 positions at most, 8 + 36 for a short source
    generating = [len(batch) for batch in evaluator._batches(encoded, True)]
    assert generating == [4, 6, 6, 4]
    # without: 3 target tokens; 32 + 3 and 8 + 3
    assert [len(batch) for batch in evaluator._batches(encoded, False)] == [4, 12, 4]


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


def test_the_loss_is_per_target_token_of_the_whole_split(tmp_path: Path) -> None:
    evaluator, model = summariser(tmp_path)
    rows = list(evaluator.encoded["test"])
    loss, count = evaluator.loss_fn(model, evaluator.collator(rows))
    result = evaluator(model, "test", generate=False)
    assert result.metrics == {"loss": pytest.approx(loss.item(), abs=1e-5)}
    assert count == sum(len(row["labels"]) for row in rows)
    assert result.rows == []


def test_text_does_not_depend_on_the_batches(tmp_path: Path) -> None:
    evaluator, model = summariser(tmp_path)
    result = evaluator(model, "test")
    evaluator.batch_size = 1
    single = evaluator(model, "test")
    assert [row["prediction"] for row in single.rows] == [row["prediction"] for row in result.rows]
    assert [row["reference"] for row in result.rows] == TARGETS
    assert len({row["prediction"] for row in result.rows}) > 3
    assert {"loss", "rouge1", "rouge2", "rougeL", "rougeLsum"} == set(result.metrics)


def test_an_error_while_texts_are_decoded_ends_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, model = summariser(tmp_path, batch_size=1)
    decode, calls = evaluator._decode, []

    def fail_once(tokens: Any) -> list[str]:
        calls.append(threading.current_thread().name)
        if len(calls) == 2:
            raise RuntimeError("no such token")
        return decode(tokens)

    monkeypatch.setattr(evaluator, "_decode", fail_once)
    with pytest.raises(RuntimeError, match="no such token"):
        evaluator(model, "test")
    assert len(calls) < 9
    assert all(name.startswith("decode-predictions") for name in calls)


def test_decoding_ignores_the_models_generation_config(tmp_path: Path) -> None:
    evaluator, model = summariser(tmp_path, decoding=DecodingConfig(num_beams=1, max_length=9))
    stated = evaluator(model, "test").rows
    own = model.generation_config
    own.num_beams, own.forced_bos_token_id, own.no_repeat_ngram_size = 4, 17, 1
    own.min_length, own.repetition_penalty, own.suppress_tokens = 8, 3.0, list(range(20, 200))
    assert evaluator(model, "test").rows == stated
    assert model.generation_config is own


def test_decoding_settings_are_applied(tmp_path: Path) -> None:
    evaluator, model = summariser(tmp_path)
    batch = evaluator.collator(list(evaluator.encoded["test"]))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    tokenizer = evaluator.tokenizer
    forced = DecodingConfig(num_beams=2, max_length=10, min_length=10, forced_bos=True)
    evaluator.generation |= forced.model_dump()
    tokens = generate(model, **inputs, decoding=evaluator.generation)
    assert tokens.shape == (9, 10)
    assert set(tokens[:, 0].tolist()) == {2}
    assert set(tokens[:, 1].tolist()) == {tokenizer.bos_token_id}
    assert set(tokens[:, -1].tolist()) == {tokenizer.eos_token_id}
    assert (
        "num_beams:3|max_length:12|min_length:4" in evaluator(model, "test").signatures["decoding"]
    )


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_the_encoder_runs_once_for_loss_and_text(
    autocast: torch.dtype | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, model = summariser(tmp_path, autocast=autocast)
    calls: list[int] = []
    model.get_encoder().register_forward_hook(lambda *_: calls.append(1))
    result = evaluator(model, "test")
    assert len(calls) == (3 if autocast is None else 6)  # under autocast only the loss is bf16
    monkeypatch.setattr(module, "can_generate", lambda model: False)
    apart = evaluator(model, "test")
    assert apart.metrics == result.metrics
    assert apart.rows == result.rows


def test_signatures_name_the_rules_that_were_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, model = summariser(tmp_path)
    assert evaluator(model, "test").signatures["decoding"].endswith("|rules:2021")
    monkeypatch.setattr(module, "can_generate", lambda model: False)
    assert evaluator(model, "test").signatures["decoding"].endswith("|rules:transformers")


def test_reference_code_truncates_references(tmp_path: Path) -> None:
    evaluator, model = summariser(tmp_path, references="reference_code")
    result = evaluator(model, "test")
    tokenizer = evaluator.tokenizer
    cut = [tokenizer(text)["input_ids"][1:-1][:3] for text in TARGETS]  # <s>, three, </s>
    assert [row["reference"] for row in result.rows] == [
        tokenizer.decode(ids).strip() for ids in cut
    ]
    assert [row["reference"] for row in result.rows] != TARGETS
    assert result.signatures["references"] == "reference_code"
    tokens = [tokenizer("the cat , on .")["input_ids"]]
    assert evaluator._decode(tokens) == ["the cat, on."]
    raw, _ = summariser(tmp_path)
    assert raw._decode(tokens) == ["the cat , on ."]


def test_translations_start_with_the_language_code(tmp_path: Path) -> None:
    rows = [{"translation": {"en": s, "ro": t}} for s, t in zip(SOURCES, TARGETS, strict=True)]
    lengths = {"max_source_length": 32, "max_target_length": 16, "eval_target_length": 16}
    task = WMT16EnRo(name="wmt16_en_ro", path=write(tmp_path, rows), **lengths)
    tokenizer = tiny_text.bart_tokenizer(tiny_text.CODES)
    loss = SequenceLoss(0.1)
    evaluator, _ = assemble(task, tokenizer, "rotate", loss, decoding=BEAMS)
    romanian = tokenizer.convert_tokens_to_ids("ro_RO")
    assert evaluator.generation["decoder_start_token_id"] == romanian
    result = evaluator(tiny_text.mbart(len(tokenizer)), "test")
    assert {"loss", "bleu", "bleu_paper", "chrf"} == set(result.metrics)
    assert all("_" not in row["prediction"] for row in result.rows)  # no code in the text


def test_text_needs_decoding_settings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.decoding is missing"):
        summariser(tmp_path, decoding=None)
