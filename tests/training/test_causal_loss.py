"""The loss of decoder-only models against transformers' own, and likelihoods of continuations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_causal import FAMILIES, model
from torch import Tensor

from unipeft_run.data.causal_batches import CausalCollator
from unipeft_run.training.causal_loss import CausalLoss, log_likelihoods, shift_left
from unipeft_run.training.compute.shapes import ShapeGrid
from unipeft_run.training.losses import cross_entropy
from unipeft_run.training.progress import count_targets, count_tokens

WORDS = 60
ROWS = [
    {"input_ids": [0, 5, 6, 7, 8, 9, 2], "prompt_length": 3},
    {"input_ids": [0, 11, 2], "prompt_length": 2},
    {"input_ids": [0, 12, 13, 14, 15, 16, 17, 18, 19, 20], "prompt_length": 1},
]


def batch(loss_on: Any = "response") -> dict[str, Tensor]:
    return CausalCollator(1, loss_on=loss_on)(ROWS)


def gradients(own: Any, loss: Tensor) -> dict[str, Tensor]:
    own.zero_grad()
    torch.autograd.backward(loss)
    return {name: p.grad.clone() for name, p in own.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("loss_on", ["response", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_and_its_gradients_are_transformers_own(family: str, loss_on: Any) -> None:
    own, inputs = model(family, WORDS).double(), batch(loss_on)
    theirs = own(**inputs).loss
    ours, count = CausalLoss(0.0)(own, inputs)
    assert ours.item() == pytest.approx(theirs.item(), abs=2e-6)  # theirs is computed in float32
    assert count == {"response": 4 + 1 + 9, "all": 6 + 2 + 9}[loss_on]
    expected, found = gradients(own, theirs), gradients(own, CausalLoss(0.0)(own, inputs)[0])
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=2e-6, msg=name)


@pytest.mark.parametrize("keeps_padding", [True, False])
@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_chunks_of_the_head_change_nothing(rows: int, keeps_padding: bool) -> None:
    own, inputs = model("llama", WORDS).double(), batch()
    logits = own(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    plain = cross_entropy(logits, shift_left(inputs["labels"]), 0.1)
    loss_fn = CausalLoss(0.1, chunk=rows * WORDS, keeps_padding=keeps_padding)
    loss, _ = loss_fn(own, inputs)
    assert loss.item() == pytest.approx(plain.item(), abs=1e-9)
    expected, found = gradients(own, plain), gradients(own, loss_fn(own, inputs)[0])
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-9, msg=name)


def test_labels_move_to_the_position_that_predicts_them() -> None:
    assert shift_left(torch.tensor([[-100, 3, 4]])).tolist() == [[3, 4, -100]]


def test_the_loss_ignores_prompt_and_padding() -> None:
    own, inputs = model("llama", WORDS), batch()
    before, _ = CausalLoss(0.0)(own, inputs)
    hidden = inputs["attention_mask"] == 0
    inputs["input_ids"] = inputs["input_ids"].masked_fill(hidden, 33)
    assert CausalLoss(0.0)(own, inputs)[0] == before


@pytest.mark.parametrize("family", FAMILIES)
def test_fixed_shapes_change_neither_loss_nor_count(family: str) -> None:
    own, inputs = model(family, WORDS).double(), batch()
    padded = ShapeGrid(1, rows=4, longest=256, source=32).pad(inputs)
    assert {name: tuple(t.shape) for name, t in padded.items()} == dict.fromkeys(inputs, (4, 32))
    plain, targets = CausalLoss(0.0)(own, inputs)
    fixed, same = CausalLoss(0.0)(own, padded)
    assert fixed.item() == pytest.approx(plain.item(), abs=1e-7)
    assert int(same) == int(targets) == count_targets(inputs)


def test_tokens_are_counted_once() -> None:
    assert count_tokens(batch()) == 7 + 3 + 10


@pytest.mark.parametrize("family", FAMILIES)
def test_likelihoods_are_sums_over_the_response(family: str) -> None:
    own = model(family, WORDS).double()
    with torch.no_grad():
        sums, counts = log_likelihoods(own, batch())
        for row, total, count in zip(ROWS, sums, counts, strict=True):
            ids, start = row["input_ids"], row["prompt_length"]
            scores = own(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            literal = sum(scores[place - 1, ids[place]].item() for place in range(start, len(ids)))
            assert total.item() == pytest.approx(literal, abs=1e-6)
            assert count == len(ids) - start
    assert not own.get_output_embeddings()._forward_pre_hooks
