"""The optimiser against a literal restatement; the schedules against the paper's code."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
from tiny_families import CONFIGS, backbone
from torch import Tensor, nn

from unipeft_run.errors import UserError
from unipeft_run.training.optim import (
    build_optimizer,
    build_optimizer_and_schedule,
    build_schedule,
    parameter_groups,
)
from unipeft_run.training.state import load_optimizer_state, optimizer_state

# layer_norm, layernorm, ln_f, layrnorm (CLIP), q_norm; T5's relative_attention_bias is a "bias"
NORM = re.compile(r"norm|\bln_", re.IGNORECASE)
GOLDEN = Path(__file__).parents[1] / "golden" / "traces" / "lr_schedule.json"
SCHEDULES = json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("run", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_polynomial_schedule_is_the_official_one(run: dict) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=run["lr"])
    schedule = build_schedule(optimizer, run["total"], "polynomial", run["warmup"], 1e-7)
    (factor,) = schedule.lr_lambdas
    for step, lr in run["points"].items():
        assert run["lr"] * factor(int(step)) == pytest.approx(lr, rel=1e-12)


def test_warmup_ratio_is_rounded_up() -> None:
    rates = _rates("polynomial", total=21, warmup_ratio=0.1)  # 3 steps
    assert rates[:4] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_warmup_steps_override_the_ratio() -> None:
    assert _rates("linear", total=20, warmup_steps=2, warmup_ratio=0.5)[2] == 1


def test_the_other_schedules() -> None:
    assert _rates("constant", total=4, warmup_steps=1) == [0, 1, 1, 1]
    assert _rates("linear", total=4) == pytest.approx([1, 0.75, 0.5, 0.25])
    cosine = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert _rates("cosine", total=4) == pytest.approx(cosine)


def _rates(schedule: str, *, total: int, **warmup: float) -> list[float]:
    model = nn.Linear(1, 1)
    optimizer, schedules = build_optimizer_and_schedule(
        model, total, name="adamw", lr=1.0, schedule=schedule, **warmup
    )
    rates = []
    for _ in range(total):
        rates.append(schedules.get_last_lr()[0])
        optimizer.step()
        schedules.step()
    return rates


def literal_adamw(p: Tensor, m: Tensor, v: Tensor, t: int, lr: float, wd: float) -> None:
    """AdamW of transformers in 2021, line for line; betas 0.9, 0.98, eps 1e-6."""
    m.mul_(0.9).add_(p.grad, alpha=1 - 0.9)
    v.mul_(0.98).addcmul_(p.grad, p.grad, value=1 - 0.98)
    denominator = v.sqrt().add_(1e-6)
    step_size = lr * math.sqrt(1 - 0.98**t) / (1 - 0.9**t)
    p.data.addcdiv_(m, denominator, value=-step_size)
    p.data.add_(p.data, alpha=-lr * wd)


@pytest.mark.parametrize("scale", [1.0, 1e-6], ids=["large gradients", "gradients like eps"])
def test_official_adamw_equals_the_literal_one(scale: float) -> None:
    torch.manual_seed(0)
    ours = nn.Linear(5, 4).double()
    theirs = nn.Linear(5, 4).double()
    theirs.load_state_dict(ours.state_dict())
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in theirs.parameters()]
    optimizer = build_optimizer(
        ours, name="adamw_official", lr=0.1, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1
    )
    for step in range(1, 21):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / step
        x = torch.randn(3, 5, dtype=torch.double)
        for model in (ours, theirs):
            model.zero_grad()
            (scale * model(x).square().sum()).backward()
        optimizer.step()
        for (name, p), (m, v) in zip(theirs.named_parameters(), moments, strict=True):
            literal_adamw(p, m, v, step, 0.1 / step, 0.1 if name == "weight" else 0.0)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_official_adamw_is_not_torchs() -> None:
    results = []
    for name in ("adamw", "adamw_official"):
        torch.manual_seed(0)
        layer = nn.Linear(3, 3)
        optimizer = build_optimizer(layer, name=name, lr=0.1, eps=1e-2, weight_decay=0.1)
        layer(torch.ones(2, 3)).square().mean().backward()
        optimizer.step()
        results.append(layer.weight.detach())
    assert (results[0] - results[1]).abs().max() > 1e-3


def test_parameters_without_a_gradient_do_not_change() -> None:
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    optimizer = build_optimizer(layer, name="adamw_official", lr=0.1, weight_decay=0.1)
    layer.bias.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(layer.weight, before)


def test_biases_and_layer_norms_do_not_decay() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer = nn.LayerNorm(2), nn.Linear(2, 2)
            self.frozen = nn.Linear(2, 2).requires_grad_(False)
            self.scale = nn.Parameter(torch.ones(1))
            self.prefix = nn.Embedding(3, 2)

    part = Part()
    decayed, plain = parameter_groups(part, 0.1)
    names = {id(p): name for name, p in part.named_parameters()}
    assert [names[id(p)] for p in decayed["params"]] == ["scale", "layer.weight", "prefix.weight"]
    assert [names[id(p)] for p in plain["params"]] == ["norm.weight", "norm.bias", "layer.bias"]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_norms_of_every_family_do_not_decay(family: str) -> None:
    model = backbone(family)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 0.1)
    decayed, plain = ({names[id(p)] for p in group["params"]} for group in groups)
    assert decayed | plain == set(names.values())
    assert plain == {name for name in names.values() if "bias" in name or NORM.search(name)}


def test_a_state_with_other_decayed_parameters_is_refused() -> None:
    """As of older versions, which did not spare the norms of T5 and Llama."""
    model = nn.Sequential(nn.RMSNorm(2), nn.Linear(2, 2))
    optimizer = build_optimizer(model, name="adamw", lr=0.1, weight_decay=0.1)
    parameters = list(model.parameters())
    groups = [{"params": parameters[:2], "weight_decay": 0.1}, {"params": parameters[2:]}]
    older = optimizer_state(torch.optim.AdamW(groups, lr=0.1), model)
    with pytest.raises(UserError, match=r"weight decay to other parameters; start afresh"):
        load_optimizer_state(optimizer, model, older)


def test_sgd_with_momentum_is_torchs_own() -> None:
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, name="sgd", lr=0.1, momentum=0.9, weight_decay=0.01)
    groups = [{"params": [theirs.weight], "weight_decay": 0.01}, {"params": [theirs.bias]}]
    expected = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    for _ in range(3):
        for model, stepper in ((ours, optimizer), (theirs, expected)):
            stepper.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            stepper.step()
    assert torch.allclose(ours.weight, theirs.weight) and torch.allclose(ours.bias, theirs.bias)
