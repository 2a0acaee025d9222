"""Named deltas of the PEFT library: switches keep Parameters, and refusals change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tuners import METHODS, SMALL, backbone, inputs_of, train

import unipeft
from unipeft_run.deltas.attach import attach, attach_library
from unipeft_run.errors import UserError
from unipeft_run.tuners.adapter import Adapter

pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks"),
]
FAST = ("peft/dora", "peft/vblora", "peft/shira", "peft/trainable_tokens")
PISSA = {"r": 2, "init_lora_weights": "pissa"}


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(**inputs_of("roberta")).logits  # type: ignore[no-any-return]


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def step(model: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(**inputs_of("roberta")).logits.logsumexp(-1).sum().backward()
    optimizer.step()


SHARED = ("peft/vera", "peft/fourierft", "peft/randlora", "peft/oft")


@pytest.mark.parametrize("method", SHARED)
def test_a_method_trains_after_a_switch_in_inference_mode(method: str) -> None:
    model = backbone("roberta")
    with torch.inference_mode():
        unipeft.attach(model, method, name="one", peft=SMALL.get(method, {}), unfreeze="*bias")
    with torch.inference_mode(), unipeft.disabled(model):
        model(**inputs_of("roberta"))
    assert not any(tensor.is_inference() for tensor in model.state_dict().values())
    train(model, inputs_of("roberta"), steps=1)


def check_switches(method: str, **fields: Any) -> None:
    model = backbone("roberta")
    plain = logits(model)
    unipeft.attach(model, method, name="one", peft={**SMALL.get(method, {}), **fields})
    train(model, inputs_of("roberta"), steps=1)
    before, changed = trained(model), logits(model)
    optimizer = torch.optim.SGD(before.values(), lr=0.1)
    with unipeft.disabled(model):
        torch.testing.assert_close(logits(model), plain, rtol=0, atol=0)
    unipeft.attach(model, "bitfit", name="two")
    unipeft.activate(model, "one")
    after = trained(model)
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    torch.testing.assert_close(logits(model), changed, rtol=0, atol=0)
    step(model, optimizer)
    assert not torch.equal(logits(model), changed)


@pytest.mark.parametrize("method", FAST)
def test_an_optimiser_survives_a_switch(method: str) -> None:
    check_switches(method)


@pytest.mark.slow
@pytest.mark.parametrize("method", [method for method in METHODS if method not in FAST])
def test_an_optimiser_survives_a_switch_of_every_method(method: str) -> None:
    check_switches(method)


def test_an_optimiser_survives_a_switch_of_a_method_that_rewrites_weights() -> None:
    check_switches("peft/lora", **PISSA)


def test_backbone_weights_that_train_beside_pissa_survive_a_switch() -> None:
    model = backbone("roberta")
    plain = logits(model)
    unipeft.attach(model, "peft/lora", name="one", peft=PISSA, unfreeze="*query.weight")
    train(model, inputs_of("roberta"), steps=1)
    changed = logits(model)
    with unipeft.disabled(model):
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model), changed)


def test_an_inactive_method_follows_the_type_of_the_model() -> None:
    model = backbone("roberta")
    unipeft.attach(model, "peft/lora", name="one", peft={"r": 2})
    train(model, inputs_of("roberta"), steps=1)
    changed = logits(model)
    before = trained(model)
    unipeft.activate(model, None)
    model.double()
    unipeft.activate(model, "one")
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert all(p is before[name] for name, p in trained(model).items())
    torch.testing.assert_close(logits(model).float(), changed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["bitfit", "full", "lora_attn"])
def test_methods_attach_while_a_method_of_the_library_acts(method: str) -> None:
    model, other = backbone("roberta"), backbone("roberta")
    unipeft.attach(model, "peft/dora", peft={"r": 2})
    torch.manual_seed(0)
    found = unipeft.attach(model, method)
    torch.manual_seed(0)
    expected = unipeft.attach(other, method)
    assert found.sites == expected.sites
    assert trained(model).keys() == trained(other).keys()
    assert unipeft.active(model) == [method]


def snapshot(model: Any) -> dict[str, Any]:
    parameters = {name: (id(p), p.requires_grad) for name, p in model.named_parameters()}
    return {"names": sorted(vars(model)), "parameters": parameters, "modules": str(model)}


def check_refused(model: Any, message: str, **peft: Any) -> None:
    before, expected = snapshot(model), logits(model)
    with pytest.raises(UserError, match=message):
        unipeft.attach(model, "peft/lora", name="refused", peft=peft)
    assert snapshot(model) == before
    assert torch.equal(logits(model), expected)


def test_a_refusal_of_the_library_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone("roberta")
    check_refused(model, "out_proj is in the head", target_modules=["out_proj"])
    from peft.tuners.lora import LoraModel

    original, calls = LoraModel._create_and_replace, []

    def fail_halfway(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) % 4 == 0:
            raise ValueError("half of the modules are replaced")
        original(*args, **kwargs)

    monkeypatch.setattr(LoraModel, "_create_and_replace", fail_halfway)
    check_refused(model, "rejected by the PEFT library: half of the modules", **PISSA)
    unipeft.attach(model, "lora_attn", bottleneck=2)
    check_refused(model, "rejected by the PEFT library: half of the modules", **PISSA)
    assert unipeft.active(model) == ["lora_attn"]


def test_a_changed_output_layer_is_refused_without_a_trace() -> None:
    model = backbone("gpt2")
    before = snapshot(model)
    with pytest.raises(UserError, match="changes the output embeddings"):
        unipeft.attach(model, "peft/lora", peft={"target_modules": ["lm_head"]})
    assert snapshot(model) == before
    unipeft.attach(model, "peft/lora", peft={"r": 2})


def test_a_failure_after_the_modules_are_in_place_is_undone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = backbone("roberta")
    before = snapshot(model)

    def fail(self: Adapter) -> None:
        raise UserError("late")

    monkeypatch.setattr(Adapter, "rows", fail)
    with pytest.raises(UserError, match="late"):
        unipeft.attach(model, "peft/lora", peft=PISSA)
    assert snapshot(model) == before
    reference = backbone("roberta")
    assert torch.equal(logits(model), logits(reference))


def test_a_failed_activation_restores_the_backbone_and_what_acted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = backbone("roberta")
    plain = logits(model)
    unipeft.attach(model, "peft/lora", name="one", peft={"r": 2}, unfreeze="*bias")
    train(model, inputs_of("roberta"), steps=1)
    one = logits(model)
    unipeft.attach(model, "bitfit", name="two")
    train(model, inputs_of("roberta"), steps=1)
    two = logits(model)
    with monkeypatch.context() as patch:
        patch.setattr(Adapter, "load", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            unipeft.activate(model, "one")
    assert unipeft.active(model) == ["two"]
    assert torch.equal(logits(model), two)
    with unipeft.disabled(model):
        assert torch.equal(logits(model), plain)
    unipeft.activate(model, "one")
    assert torch.equal(logits(model), one)


def test_loading_compares_the_plain_weights_while_pissa_acts(tmp_path: Path) -> None:
    model = backbone("roberta")
    unipeft.attach(model, "lora_attn", bottleneck=2)
    unipeft.save(model, tmp_path)
    unipeft.detach(model)
    unipeft.attach(model, "peft/lora", name="pissa", peft=PISSA)
    unipeft.load(model, tmp_path)
    assert list(unipeft.attached(model)) == ["pissa", "lora_attn"]


def test_a_model_of_a_run_with_a_method_of_the_library_is_refused() -> None:
    from tuners import tuner_of

    model = backbone("roberta")
    attach(model, {})
    attach_library(model, tuner_of("peft/lora"))
    with pytest.raises(UserError, match="not attached with unipeft"):
        unipeft.attach(model, "mam")
    with pytest.raises(UserError, match=r"deltas that were not attached with unipeft\.attach"):
        unipeft.activate(model, "mam")
