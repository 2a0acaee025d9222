"""Checkpoints of the PEFT library load: recorded logits, loss and counts, and refusals by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_peers import backbone, case_names, float64_islands, inputs_of, load, widen_rotary
from torch import nn

from unipeft_run.interop.peft import from_peft

pytest.importorskip("peft")

FOLDER = "peft_cases"
GENERATED = ("p_tuning_mlp", "p_tuning_lstm", "prefix_tuning_projection")
CASES = case_names(FOLDER)


def loaded(case: str, *, generator: bool = False, **changes: Any) -> tuple[nn.Module, Any]:
    """Return the model of a case, and the family's other tensors with the case's outputs."""
    meta, tensors = load(f"{FOLDER}/{case}")
    config, state, others = backbone(meta["family"])
    config._attn_implementation = "eager"
    kinds = ("state/", "generator/") if generator else ("state/",)
    for name, tensor in tensors.items():
        if name.startswith(kinds):
            state[name.partition("/")[2]] = tensor
    state = {name: t for name, t in state.items() if name not in changes.pop("without", ())}
    model = from_peft({**meta["config"], **changes}, config, state)
    return model, (inputs_of(others), tensors, meta)


def trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_a_recorded_case_has_its_logits_loss_and_counts(case: str) -> None:
    model, (inputs, tensors, meta) = loaded(case)
    assert not model.training
    plain = model(**inputs)
    assert relative(plain.logits, tensors["output/logits"]) < 1e-4
    with float64_islands():
        widen_rotary(model)
        exact = model(**inputs)
    assert relative(exact.logits, tensors["output/logits"]) < 1e-9
    assert relative(exact.loss, tensors["output/loss"]) < 1e-9
    is_generated = meta["method"] in GENERATED
    assert trained(model) == meta["counts"]["state_dict" if is_generated else "trainable"]


@torch.no_grad()
@pytest.mark.parametrize("case", [case for case in CASES if case.endswith(GENERATED)])
def test_what_generates_a_prompt_loads_and_trains_too(case: str) -> None:
    model, (inputs, tensors, meta) = loaded(case, generator=True)
    with float64_islands():
        widen_rotary(model)
        exact = model(**inputs)
    assert relative(exact.logits, tensors["output/logits"]) < 1e-9
    assert trained(model) == meta["counts"]["trainable"]
