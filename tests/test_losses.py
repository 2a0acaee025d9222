"""Losses, against their literal statement in the paper's code and against the models' own."""

from __future__ import annotations

import pytest
import tiny_text
import torch
from torch import Tensor

from unipeft_run.batching import Collator
from unipeft_run.losses import ClassificationLoss, SequenceLoss, cross_entropy


def label_smoother(logits: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """transformers' LabelSmoother of 2021, restated."""
    log_probs = -torch.nn.functional.log_softmax(logits, dim=-1)
    labels = labels.unsqueeze(-1)
    padding_mask = labels.eq(-100)
    nll_loss = log_probs.gather(dim=-1, index=labels.clamp(min=0))
    smoothed_loss = log_probs.sum(dim=-1, keepdim=True, dtype=torch.float32)
    nll_loss = nll_loss.masked_fill(padding_mask, 0.0)
    smoothed_loss = smoothed_loss.masked_fill(padding_mask, 0.0)
    num_active_elements = padding_mask.numel() - padding_mask.long().sum()
    nll_loss = nll_loss.sum() / num_active_elements
    smoothed_loss = smoothed_loss.sum() / (num_active_elements * log_probs.shape[-1])
    return (1 - epsilon) * nll_loss + epsilon * smoothed_loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_smoothing_is_that_of_the_reference(smoothing: float) -> None:
    torch.manual_seed(1)
    logits = torch.randn(3, 5, 17, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 17, (3, 5))
    labels[0, 3:], labels[2, 1:] = -100, -100
    ours, theirs = (f(logits, labels, smoothing) for f in (cross_entropy, label_smoother))
    assert abs(ours.item() - theirs.item()) < 1e-6  # they sum in float32
    (ours_gradient,) = torch.autograd.grad(ours, logits)
    (gradient,) = torch.autograd.grad(theirs, logits)
    assert torch.allclose(ours_gradient, gradient, atol=1e-8)
    assert ours_gradient[0, 3:].abs().max() == 0


def test_half_precision_logits_are_summed_in_float32() -> None:
    torch.manual_seed(1)
    logits = torch.randn(4, 3000).bfloat16()
    labels = torch.randint(0, 3000, (4,))
    loss = cross_entropy(logits, labels, 0.1)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, cross_entropy(logits.float(), labels, 0.1))


def test_the_plain_loss_of_a_sequence_is_the_models_own() -> None:
    rows = [
        {"input_ids": [5, 6, 2], "labels": [7, 8, 9, 2]},
        {"input_ids": [6, 2], "labels": [7, 2]},
    ]
    batch = Collator(pad_token_id=1, decoder_start=2)(rows)
    model = tiny_text.bart(30)
    loss, count = SequenceLoss(0.0)(model, batch)
    own = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]
    ).loss
    assert count == 6
    assert torch.allclose(loss, own, atol=1e-6)
    smoothed, _ = SequenceLoss(0.1)(model, batch)
    assert not torch.allclose(smoothed, own, atol=1e-3)


def test_the_loss_of_classes_is_per_example() -> None:
    rows = [{"input_ids": [5, 6, 2], "labels": 2}, {"input_ids": [6, 2], "labels": 0}]
    model = tiny_text.roberta(30, num_labels=3)
    batch = Collator(pad_token_id=1)(rows)
    loss, count = ClassificationLoss()(model, batch)
    assert count == 2
    assert torch.allclose(loss, model(**batch).loss, atol=1e-6)
