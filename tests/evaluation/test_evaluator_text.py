"""Text from the evaluator: loss, generation, decoding settings and references."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_text
import torch
from tiny_evaluators import (
    BEAMS,
    SOURCES,
    TARGETS,
    assemble,
    summariser,
    write,
)

from unipeft_run.config.schema import DecodingConfig
from unipeft_run.data.tasks.wmt16_en_ro import WMT16EnRo
from unipeft_run.errors import UserError
from unipeft_run.evaluation import generation
from unipeft_run.evaluation.generation import generate
from unipeft_run.task_types import seq2seq as module
from unipeft_run.training.losses import SequenceLoss


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))


def test_the_loss_is_per_target_token_of_the_whole_split(tmp_path: Path) -> None:
    evaluator, model = summariser(tmp_path)
    rows = list(evaluator.encoded["test"])
    loss, count = evaluator.step.loss_fn(model, evaluator.step.collator(rows))
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
    decode, calls = evaluator.step.decode, []

    def fail_once(tokens: Any) -> list[str]:
        calls.append(threading.current_thread().name)
        if len(calls) == 2:
            raise RuntimeError("no such token")
        return decode(tokens)

    monkeypatch.setattr(evaluator.step, "decode", fail_once)
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
    batch = evaluator.step.collator(list(evaluator.encoded["test"]))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    tokenizer = evaluator.step.tokenizer
    forced = DecodingConfig(num_beams=2, max_length=10, min_length=10, forced_bos=True)
    evaluator.step.generation |= forced.model_dump()
    tokens = generate(model, **inputs, decoding=evaluator.step.generation)
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
    monkeypatch.setattr(generation, "find_obstacle", lambda model: "a reason")
    assert evaluator(model, "test").signatures["decoding"].endswith("|rules:transformers")


def test_reference_code_truncates_references(tmp_path: Path) -> None:
    evaluator, model = summariser(tmp_path, references="reference_code")
    result = evaluator(model, "test")
    tokenizer = evaluator.step.tokenizer
    cut = [tokenizer(text)["input_ids"][1:-1][:3] for text in TARGETS]  # <s>, three, </s>
    assert [row["reference"] for row in result.rows] == [
        tokenizer.decode(ids).strip() for ids in cut
    ]
    assert [row["reference"] for row in result.rows] != TARGETS
    assert result.signatures["references"] == "reference_code"
    tokens = [tokenizer("the cat , on .")["input_ids"]]
    assert evaluator.step.decode(tokens) == ["the cat, on."]
    raw, _ = summariser(tmp_path)
    assert raw.step.decode(tokens) == ["the cat , on ."]


def test_translations_start_with_the_language_code(tmp_path: Path) -> None:
    rows = [{"translation": {"en": s, "ro": t}} for s, t in zip(SOURCES, TARGETS, strict=True)]
    lengths = {"max_source_length": 32, "max_target_length": 16, "eval_target_length": 16}
    task = WMT16EnRo(name="wmt16_en_ro", path=write(tmp_path, rows), **lengths)
    tokenizer = tiny_text.bart_tokenizer(tiny_text.CODES)
    loss = SequenceLoss(0.1)
    evaluator, _ = assemble(task, tokenizer, "rotate", loss, decoding=BEAMS)
    romanian = tokenizer.convert_tokens_to_ids("ro_RO")
    assert evaluator.step.generation["decoder_start_token_id"] == romanian
    result = evaluator(tiny_text.mbart(len(tokenizer)), "test")
    assert {"loss", "bleu", "bleu_paper", "chrf"} == set(result.metrics)
    assert all("_" not in row["prediction"] for row in result.rows)  # no code in the text


def test_text_needs_decoding_settings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.decoding is missing"):
        summariser(tmp_path, decoding=None)


def test_a_forced_start_token_has_to_exist(tmp_path: Path) -> None:
    made, _ = summariser(tmp_path)
    made.step.tokenizer.bos_token = None
    decoding = BEAMS.model_copy(update={"forced_bos": True})
    with pytest.raises(UserError, match="the backbone's tokenizer has no start token"):
        replace(made.step, decoding=decoding)
