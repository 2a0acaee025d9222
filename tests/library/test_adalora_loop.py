"""AdaLoRA in the user's own loop: the penalty on the loss, and the rank schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tuners import backbone, inputs_of

import unipeft
from unipeft_run.errors import UserError
from unipeft_run.tuners.adalora import orthogonality_penalty

pytest.importorskip("peft")
STEPS = 6
LABELS = torch.tensor([0, 2])
SIZES = {"init_r": 4, "target_r": 2, "orth_reg_weight": 0.5}


def make_model() -> Any:
    model = backbone("roberta")
    torch.manual_seed(3)
    unipeft.attach(model, "peft/adalora", name="ada", peft=SIZES)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_E." in name:
                parameter.copy_(torch.randn(parameter.shape))
    return model


def loss_of(model: Any) -> torch.Tensor:
    return model(**inputs_of("roberta"), labels=LABELS).loss  # type: ignore[no-any-return]


def check_penalty(model: Any, expected: float) -> None:
    output = model(**inputs_of("roberta"), labels=LABELS)
    penalty = output.loss - torch.nn.functional.cross_entropy(output.logits, LABELS)
    assert penalty.item() == pytest.approx(expected, abs=1e-5)


def test_the_loss_in_training_has_the_penalty_while_the_delta_is_active() -> None:
    model = make_model().train()
    penalty = 0.5 * orthogonality_penalty(model).item()
    assert penalty > 0.1
    check_penalty(model, penalty)
    with unipeft.disabled(model):
        check_penalty(model, 0.0)
    check_penalty(model, penalty)
    check_penalty(model.eval(), 0.0)
    check_penalty(unipeft.fold(model).train(), 0.0)
    unipeft.detach(model)
    check_penalty(model.train(), 0.0)
    assert not model._forward_hooks


def train(model: Any, switch: bool) -> dict[str, torch.Tensor]:
    model.eval()  # no dropout
    schedule = unipeft.rank_schedule(model, STEPS)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    for step in range(1, STEPS + 1):
        loss_of(model).backward()
        optimizer.step()
        schedule(step)
        optimizer.zero_grad()
        if switch:
            with unipeft.disabled(model), pytest.raises(UserError, match="AdaLoRA is not active"):
                schedule(step)
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_the_rank_schedule_prunes_and_survives_switches() -> None:
    found, expected = train(make_model(), switch=True), train(make_model(), switch=False)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    kept = sum(int((value != 0).sum()) for name, value in found.items() if ".lora_E." in name)
    assert kept == SIZES["target_r"] * 4  # two layers with queries and values


@pytest.mark.parametrize("method", ["lora_attn", "peft/lora"])
def test_other_methods_have_no_rank_schedule(method: str) -> None:
    model = backbone("roberta")
    unipeft.attach(model, method, name="other")
    with pytest.raises(UserError, match="with peft/adalora only, and other is active"):
        unipeft.rank_schedule(model, STEPS)
