"""Replaced parts of a step against the plain ones: casts, oneDNN, shared prefixes, dropout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attached_models import attach_method
from tiny_compute import (
    assert_close,
    descend,
    gradients,
    make_accumulator,
    micro_batches,
)
from tiny_training import make_trainer
from torch import nn
from torch.nn import functional as F

from unipeft_run.runs.folder import RunFolder
from unipeft_run.training.compute import linears
from unipeft_run.training.compute.dropout import draw_mask, fast_dropout
from unipeft_run.training.compute.linears import cast_frozen_linears, replaced_forwards
from unipeft_run.training.compute.memories import SharedMemories
from unipeft_run.training.compute.onednn import OneDnnLinear, has_onednn, onednn_linears
from unipeft_run.training.compute.plan import ComputeOptions
from unipeft_run.training.losses import SequenceLoss

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="torch without oneDNN")


@pytest.mark.parametrize("method", ["mam", "lora_ffn", "bitfit", "adapter_attn"])
def test_casting_frozen_weights_once_gives_the_bits_of_autocast(method: str) -> None:
    plain = attach_method(method, "bart")[0].eval()
    batch = micro_batches("bart", 1)[0].batch
    results = []
    for replacements in ({}, cast_frozen_linears(plain, torch.bfloat16)):
        plain.zero_grad()
        with replaced_forwards(replacements), torch.autocast("cpu", torch.bfloat16):
            loss, _ = SequenceLoss(0.1)(plain, batch)
        loss.backward()
        results.append((loss.detach(), gradients(plain)))
    assert len(cast_frozen_linears(plain, torch.bfloat16)) > 10
    assert torch.equal(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        assert torch.equal(gradient, results[1][1][name]), name


def test_frozen_weights_are_cast_once_only_where_memory_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = attach_method("mam", "bart")[0]
    cast = cast_frozen_linears(model, torch.bfloat16)
    needed = sum(2 * linear.weight.numel() for linear in cast)
    monkeypatch.setattr(linears, "free_memory", lambda device: 2 * needed)
    assert cast_frozen_linears(model, torch.bfloat16).keys() == cast.keys()
    monkeypatch.setattr(linears, "free_memory", lambda device: 2 * needed - 1)
    assert not cast_frozen_linears(model, torch.bfloat16)


@needs_onednn
@pytest.mark.parametrize("method", ["mam", "lora_ffn", "bitfit", "full"])
def test_onednn_gives_the_gradients_of_torch(method: str) -> None:
    model = attach_method(method, "bart")[0].eval()
    batch = micro_batches("bart", 1)[0].batch
    results = []
    for replacements in ({}, onednn_linears(model)):
        model.zero_grad()
        with replaced_forwards(replacements):
            loss, _ = SequenceLoss(0.1)(model, batch)
        loss.backward()
        results.append(gradients(model) | {"loss": loss.detach()})
    assert_close(results[1], results[0], 1e-4)
    assert not any("forward" in module.__dict__ for module in model.modules())


@needs_onednn
def test_the_result_of_onednn_may_be_modified() -> None:
    linear = nn.Linear(8, 6).requires_grad_(False)
    x = torch.randn(3, 5, 8, requires_grad=True)
    result = OneDnnLinear(linear)(x)
    expected = result.detach() + 1
    result += 1  # as the layers of the PEFT library do
    result.sum().backward()
    assert torch.equal(result, expected)
    torch.testing.assert_close(x.grad, linear.weight.sum(0).expand(3, 5, 8))


@needs_onednn
def test_onednn_leaves_float64_alone() -> None:
    model = attach_method("mam", "bart")[0].double()
    assert not onednn_linears(model)


@pytest.mark.parametrize("method", [["mam"], ["prefix"], ["mh_parallel", "attn.mlp_width=16"]])
def test_prefixes_generated_once_get_the_gradients_of_every_micro_batch(
    method: list[str],
) -> None:
    model = attach_method(method[0], "bart", *method[1:])[0].double().eval()
    shared, alone = make_accumulator(model), make_accumulator(model)
    assert shared.memories is not None and len(shared.memories.forms) > 1
    alone.memories = None
    for seed in (1, 2):
        results = []
        for accumulator in (alone, shared):
            losses = accumulator.accumulate(micro_batches("bart", seed))
            results.append((losses, gradients(model)))
            accumulator.clear()
        assert results[1][0] == pytest.approx(results[0][0], rel=1e-9)
        assert_close(results[1][1], results[0][1], 1e-9)
        alone.accumulate(micro_batches("bart", seed))
        descend(model)  # the next prefixes differ
        alone.clear()


def test_prefixes_with_dropout_are_generated_for_every_micro_batch() -> None:
    model = attach_method("mam", "bart")[0]
    memories = SharedMemories(model, torch.no_grad)
    assert memories.forms
    for form in memories.forms:
        form.dropout.p = 0.1
    assert not SharedMemories(model, torch.no_grad).forms


def test_prefixes_are_restored_after_an_error() -> None:
    memories = SharedMemories(attach_method("mam", "bart")[0], torch.enable_grad)
    with pytest.raises(ZeroDivisionError), memories.shared():
        raise ZeroDivisionError
    assert not any("memory" in form.__dict__ for form in memories.forms)


# Dropout


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_fast_dropout_keeps_and_scales_like_torch(p: float) -> None:
    x = torch.ones(1000, 1001, requires_grad=True)
    torch.manual_seed(1)
    with fast_dropout():
        y = F.dropout(x, p)
    y.sum().backward()
    assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)])
    assert torch.equal(x.grad, y)  # type: ignore[arg-type]
    assert float((y == 0).float().mean()) == pytest.approx(p, abs=4 * (p * (1 - p) / 1e6) ** 0.5)


def test_dropout_masks_follow_from_the_random_state_and_are_independent() -> None:
    torch.manual_seed(1)
    first, second = draw_mask(torch.Size([64, 999]), 0.5), draw_mask(torch.Size([64, 999]), 0.5)
    torch.manual_seed(1)
    assert torch.equal(draw_mask(torch.Size([64, 999]), 0.5), first)
    assert float((first == second).float().mean()) == pytest.approx(0.5, abs=0.01)
    rows = first.float() - 0.5
    assert float((rows[:, 1:] * rows[:, :-1]).mean().abs()) < 0.005


def test_dropout_is_plain_outside_training_and_outside_the_context() -> None:
    plain, x = F.dropout, torch.ones(3)
    with fast_dropout():
        assert F.dropout is not plain
        assert F.dropout(x, 0.5, training=False) is x
        assert nn.Dropout(0.0)(x) is x
    assert F.dropout is plain


# Deterministic kernels


def test_deterministic_kernels_suffice_for_a_step(tmp_path: Path) -> None:
    model = attach_method("mam", "bart")[0].train()
    trainer = make_trainer(
        tmp_path,
        model=model,
        loader=[batch.batch for batch in micro_batches("bart", 1)],
        loss_fn=SequenceLoss(0.1),
        folder=RunFolder(tmp_path),
        compute=ComputeOptions(deterministic=True),
        evaluate=None,
        accumulation=3,
        max_steps=1,
    )
    assert torch.are_deterministic_algorithms_enabled()
    trainer.fit()
    make_trainer(tmp_path / "next")
    assert not torch.are_deterministic_algorithms_enabled()
