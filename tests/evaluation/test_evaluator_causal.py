"""Evaluate decoder-only models: loss, responses, and choices by their likelihood."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_text
import torch
from tiny_causal import FAMILIES, GREEDY, PAIRS, QUESTIONS, choice_task, evaluator, pairs_task

from unipeft_run.backbones.load import check_lengths
from unipeft_run.data.new_inputs import encode_inputs
from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics.choices import Likelihoods
from unipeft_run.task_types.registry import TASK_TYPES

BEAMS = GREEDY.model_copy(update={"num_beams": 3})


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))


def test_the_loss_is_per_target_token_of_the_whole_split(tmp_path: Path) -> None:
    made, own = evaluator(pairs_task(tmp_path))
    rows = list(made.encoded["test"])
    loss, count = made.step.loss_fn(own, made.step.collator(rows))
    result = made(own, "test", generate=False)
    assert result.metrics == {"loss": pytest.approx(loss.item(), abs=1e-5)}
    assert count == sum(len(row["input_ids"]) - row["prompt_length"] for row in rows)
    assert result.rows == []


@pytest.mark.parametrize("decoding", [GREEDY, BEAMS])
@pytest.mark.parametrize("family", FAMILIES)
def test_responses_equal_transformers_generate(family: str, decoding: Any, tmp_path: Path) -> None:
    made, own = evaluator(pairs_task(tmp_path), family, decoding=decoding)
    result = made(own, "test")
    tokenizer = tiny_text.bart_tokenizer()
    for row, encoded in zip(result.rows, made.encoded["test"], strict=True):
        prompt = torch.tensor([encoded["input_ids"][: encoded["prompt_length"]]])
        tokens = own.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=6,
            num_beams=decoding.num_beams,
            do_sample=False,
            pad_token_id=1,
        )
        text = tokenizer.decode(tokens[0, prompt.size(1) :], skip_special_tokens=True)
        assert row["prediction"] == text.strip()
    assert [row["reference"] for row in result.rows] == [pair["response"] for pair in PAIRS]
    assert len({row["prediction"] for row in result.rows}) > 1
    assert result.metrics.keys() == {"loss", "exact_match", "rougeL"}
    assert "max_new_tokens:6" in result.signatures["decoding"]


def test_texts_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    made, own = evaluator(pairs_task(tmp_path), decoding=BEAMS)
    several = made(own, "test").rows
    made.batch_size = 1
    assert made(own, "test").rows == several


@pytest.mark.parametrize("family", FAMILIES)
def test_the_most_likely_choice_equals_a_literal_computation(family: str, tmp_path: Path) -> None:
    made, own = evaluator(choice_task(tmp_path, by="likelihood"), family)
    result, hits, normalised = made(own, "test"), [], []
    for number, question in enumerate(QUESTIONS):
        encoded = made.encoded["test"][number]
        prompt = encoded["input_ids"][: encoded["prompt_length"]]
        sums, counts = [], []
        for choice in encoded["choices"]:
            ids = torch.tensor([[*prompt, *choice]])
            scores = own(input_ids=ids).logits[0].log_softmax(-1)
            places = range(len(prompt), ids.size(1))
            sums.append(sum(scores[place - 1, ids[0, place]].item() for place in places))
            counts.append(len(choice))
        best = max(range(len(sums)), key=lambda place: sums[place])
        per_token = max(range(len(sums)), key=lambda place: sums[place] / counts[place])
        assert result.rows[number]["prediction"] == f"answer{best + 1}"
        hits.append(100.0 * (best == question["answer"]))
        normalised.append(100.0 * (per_token == question["answer"]))
    assert [row["score"] for row in result.rows] == hits
    assert result.metrics["accuracy"] == pytest.approx(sum(hits) / 4)
    assert result.metrics["accuracy_normalised"] == pytest.approx(sum(normalised) / 4)
    assert "decoding" not in result.signatures


def test_likelihoods_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    made, own = evaluator(choice_task(tmp_path, by="likelihood"))
    rows = list(made.encoded["test"])
    with torch.no_grad():
        together = made.step.evaluate(own, rows, True).outputs
        apart = [made.step.evaluate(own, [row], True).outputs[0] for row in rows]
    assert all(isinstance(found, Likelihoods) for found in together)
    for one, other in zip(together, apart, strict=True):
        assert one.sums == pytest.approx(other.sums, abs=1e-4)
        assert one.tokens == other.tokens


def test_new_prompts_leave_room_for_their_responses(tmp_path: Path) -> None:
    decoding = GREEDY.model_copy(update={"max_new_tokens": 240})
    made, own = evaluator(pairs_task(tmp_path), decoding=decoding)
    assert len(made.step.encode_inputs(own, {"prompt": ["the cat"]})) == 1
    prompts = {"prompt": ["the cat", "the cat sat on the mat and the dog sat on the cat again"]}
    (_, prompt) = encode_inputs(made.task, prompts, tiny_text.bart_tokenizer())
    assert 16 < len(prompt) <= 24
    message = rf"decoding.max_new_tokens: {len(prompt) + 240} tokens, but this .* 256 positions"
    with pytest.raises(UserError, match=message):
        made.step.encode_inputs(own, prompts)


def test_the_longest_choice_has_to_fit(tmp_path: Path) -> None:
    rows = [{**QUESTIONS[0], "choices": ["a mat", "the cat " * 200]}]
    made, own = evaluator(choice_task(tmp_path, rows=rows, by="likelihood"))
    limits = list(TASK_TYPES["causal"].output_lengths(None, made.encoded))
    alone = TASK_TYPES["causal"].output_lengths(None, {"train": made.encoded["test"]})
    assert list(alone) == limits[:1], "train, too, if it is evaluated"
    message = r"task.max_source_length \+ the longest choice: \d{3} tokens, but .* 256 positions"
    with pytest.raises(UserError, match=message):
        check_lengths(limits, own.config)
    with pytest.raises(UserError, match=message):
        made.step.encode_inputs(own, {name: [row] for name, row in rows[0].items()})


def test_batches_count_a_prompt_per_choice(tmp_path: Path) -> None:
    made, _ = evaluator(choice_task(tmp_path, by="likelihood"))
    encoded = made.encoded["test"]
    expected = [
        sum(row["prompt_length"] + len(choice) for choice in row["choices"]) for row in encoded
    ]
    assert made.step.input_lengths(encoded, True).tolist() == expected
    plain = [len(row["input_ids"]) for row in encoded]
    assert made.step.input_lengths(encoded, False).tolist() == plain


def test_generated_answers_are_scored_by_their_first_answer_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, own = evaluator(choice_task(tmp_path))
    texts = ["answer2 answer1", "the answer is answer1.", "answer3", "Answer2"]
    monkeypatch.setattr(made.step, "decode", lambda outputs: [texts.pop(0) for _ in outputs])
    made.batch_size = 10**6
    order = made.step.plan_batches(made.encoded["test"], made.batch_size, True)[0]
    texts = [texts[place] for place in order]
    result = made(own, "test")
    assert [row["score"] for row in result.rows] == [100.0, 100.0, 0.0, 0.0]
    assert [row["reference"] for row in result.rows] == ["answer2", "answer1", "answer2", "answer2"]


@pytest.mark.parametrize("by", ["generation", "likelihood"])
def test_several_tests_have_metrics_and_predictions_each(by: str, tmp_path: Path) -> None:
    rows = [{**row, "task": "ab"[place // 2]} for place, row in enumerate(QUESTIONS)]
    made, own = evaluator(choice_task(tmp_path, rows=rows, format="mixed", by=by))
    result = made(own, "test")
    accuracies = [result.metrics[f"accuracy_{test}"] for test in "ab"]
    assert result.metrics["accuracy"] == pytest.approx(sum(accuracies) / 2)
    assert {name: len(part) for name, part in result.companion_rows.items()} == {
        "test_a": 2,
        "test_b": 2,
    }
    assert result.companion_rows["test_a"] == result.rows[::2]
    assert [row["id"] for row in result.rows] == ["0", "1", "2", "3"]
    assert made(own, "test", 2).metrics.keys() >= {"accuracy_a", "accuracy_b"}


def test_decoding_must_be_given_to_generate(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="decoding is missing"):
        evaluator(pairs_task(tmp_path), decoding=None)
    evaluator(choice_task(tmp_path / "choices", by="likelihood"), decoding=None)


def test_the_longest_prompt_leaves_room_for_its_response(tmp_path: Path) -> None:
    made, _ = evaluator(pairs_task(tmp_path))
    prompts = [max(split["prompt_length"]) for split in made.encoded.values()]
    limits = partial(TASK_TYPES["causal"].output_lengths, GREEDY)
    expected = [("evaluation.decoding.max_new_tokens", prompts[0] + GREEDY.max_new_tokens)]
    assert list(limits(made.encoded)) == expected * 2, "validation and test"
    assert list(limits({"train": made.encoded["train"]})) == expected
