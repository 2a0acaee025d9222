"""Checkpoints of the PEFT library load: recorded logits, loss and counts, and refusals by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_peers import backbone, case_names, float64_islands, inputs_of, load, widen_rotary
from torch import nn

from unipeft_run.deltas.attach import find_deltas
from unipeft_run.interop.peft import from_peft

pytest.importorskip("peft")

FOLDER = "peft_cases"
GENERATED = ("p_tuning_mlp", "p_tuning_lstm", "prefix_tuning_projection")
CASES = case_names(FOLDER)


def loaded(
    case: str, *, generator: bool = False, without: tuple[str, ...] = (), **changes: Any
) -> tuple[nn.Module, Any]:
    """Return the model of a case, and its inputs, tensors and description."""
    meta, tensors = load(f"{FOLDER}/{case}")
    config, state, others = backbone(meta["family"])
    config._attn_implementation = "eager"
    kinds = ("state/", "generator/") if generator else ("state/",)
    for name, tensor in tensors.items():
        if name.startswith(kinds):
            state[name.partition("/")[2]] = tensor
    state = {name: t for name, t in state.items() if name not in without}
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


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("llama__dora_qv", {"peft_type": "LORAX"}, r"peft_config\.peft_type=LORAX is unknown"),
        ("llama__dora_qv", {"use_dorra": True}, r"no key peft_config\.use_dorra; .*use_dora"),
        ("llama__dora_qv", {"r": 4}, r"q_proj\.lora_A\.weight has the shape \[5, 32\]"),
        ("llama__dora_qv", {"r": -1}, r"peft_config\.peft_type=LORA: rejected by the PEFT library"),
        ("llama__dora_qv", {"task_type": "DANCE"}, r"peft_config: .*Invalid task type: 'DANCE'"),
        ("llama__dora_qv", {"target_modules": ["q_proj"]}, r"unexpected tensor .*v_proj"),
        ("llama__dora_qv", {"alora_invocation_tokens": [5]}, r"alora_invocation_tokens cannot be"),
        ("t5__lora_qv", {"target_modules": ["q", "v", "k"]}, r"no tensor .*\.k\.lora_A"),
        (
            "bert__vera_qv",
            {"target_modules": ["nowhere"]},
            r"rejected by the PEFT library: No layers .*target_modules",
        ),
        ("vit__lora_qv", {"peft_type": "PREFIX_TUNING"}, r"no key peft_config\.r"),
    ],
)
def test_an_option_that_does_not_fit_is_named(
    case: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loaded(case, **changes)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
        "model.layers.1.mlp.up_proj.weight",
    ],
)
def test_a_missing_tensor_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"the checkpoint has no tensor {name}"):
        loaded("llama__dora_qv", without=(name,))


def test_an_unknown_tensor_of_the_backbone_is_named() -> None:
    meta, tensors = load(f"{FOLDER}/vit__lora_qv")
    config, state, _ = backbone("vit")
    state |= {n.removeprefix("state/"): t for n, t in tensors.items() if n.startswith("state/")}
    with pytest.raises(ValueError, match="the model has no tensor extra"):
        from_peft(meta["config"], config, {**state, "extra": torch.zeros(1)})


def test_plain_lora_becomes_our_deltas_and_anything_else_the_library_s_modules() -> None:
    assert len(list(find_deltas(loaded("t5__lora_qv")[0]))) == 12
    assert not list(find_deltas(loaded("bert__lora_all_linear")[0]))


@torch.no_grad()
def test_half_precision_stays_half_precision() -> None:
    meta, tensors = load(f"{FOLDER}/bert__hira_qv")
    config, state, others = backbone("bert")
    state |= {n.removeprefix("state/"): t for n, t in tensors.items() if n.startswith("state/")}
    model = from_peft(meta["config"], config, {n: t.bfloat16() for n, t in state.items()})
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert torch.isfinite(model(**inputs_of(others)).logits).all()
