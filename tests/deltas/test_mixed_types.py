"""Deltas in models whose weights have several types, such as T5 in float16."""

from typing import Any

import pytest
import torch
from named_deltas import attach_perturbed
from tiny_families import backbone, batch

import unipeft
from unipeft_run.deltas.attach import find_deltas


def half_t5() -> Any:
    """Return what from_pretrained gives in float16: the projections `wo` stay in float32."""
    model = backbone("t5").half()
    for name, module in model.named_modules():
        if name.endswith(".wo"):
            module.float()
    return model


@pytest.mark.parametrize("method", ["pfeiffer", "houlsby", "compacter", "unipelt"])
def test_adapters_train_beside_weights_of_another_type(method: str) -> None:
    model = half_t5()
    unipeft.attach(model, method)
    model.train()(**batch("t5")).loss.backward()
    deltas = [delta for _, delta in find_deltas(model)]
    assert deltas and all(p.grad is not None for d in deltas for p in d.parameters())


def test_a_float32_delta_keeps_the_type_of_a_half_backbone() -> None:
    model = backbone("t5").bfloat16()
    attach_perturbed(model, "pfeiffer", bottleneck=4)
    with torch.no_grad():
        expected = model(**batch("t5")).logits
        for _, delta in find_deltas(model):
            delta.float()
        with unipeft.disabled(model):
            plain = model(**batch("t5")).logits
        found = model(**batch("t5")).logits
    assert found.dtype == torch.bfloat16
    assert float((found - expected).abs().max()) < 0.1 * float((expected - plain).abs().max())


@pytest.mark.parametrize(
    "method", ["pfeiffer", "houlsby", "mam", "mh_parallel", "unipelt", "lora_attn"]
)
def test_trained_parameters_may_change_type_after_attach(method: str) -> None:
    model = backbone("bart").bfloat16()
    unipeft.attach(model, method)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(**batch("bart")).loss.backward()
    with torch.no_grad():
        assert model.eval()(**batch("bart")).logits.dtype == torch.bfloat16
