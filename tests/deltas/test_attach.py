"""Attaching, detaching, copying, saving and checkpointing deltas: every method, every family."""

import copy
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from attached_models import TASKS, attach_method
from sampling import sampled
from tiny import backbone, batch

from unipeft_run.deltas.attach import attach, detach, find_deltas
from unipeft_run.deltas.delta_file import load_delta, save_delta, tabulate_parameters
from unipeft_run.deltas.slots import build_slots
from unipeft_run.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
FAMILIES = list(TASKS)
TRAINED = [method for method in METHODS if method != "none"]
DELTAS = [method for method in TRAINED if method not in ("full", "bitfit")]


@pytest.mark.parametrize(("method", "family"), sampled(product(TRAINED, FAMILIES), 4))
def test_every_method_trains_a_step(method: str, family: str) -> None:
    model, _ = attach_method(method, family)
    model.train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):  # a zero up-projection blocks the other gradients at the first step
        optimizer.zero_grad()
        model(**batch(family)).loss.backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, before[name]), name
        elif ".delta_" in name:
            assert parameter.grad is not None, name
            assert parameter.grad.count_nonzero(), name


@pytest.mark.parametrize(("method", "family"), sampled(product(DELTAS, FAMILIES), 4))
def test_detaching_restores_the_backbone(method: str, family: str) -> None:
    plain = backbone(family)
    expected, state = plain(**batch(family)).logits, plain.state_dict()
    model, _ = attach_method(method, family)
    detach(model)
    assert model.state_dict().keys() == state.keys()
    assert torch.equal(model(**batch(family)).logits, expected)
    for training in (model, plain):
        training.train()
        torch.manual_seed(3)
        training.seen = training(**batch(family)).loss
    assert torch.equal(model.seen, plain.seen)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["scaled_parallel_ffn", "lora_attn", "lora_ffn"])
def test_a_zero_delta_keeps_the_seeded_training_loss(method: str, family: str) -> None:
    plain = backbone(family).train()
    torch.manual_seed(3)
    expected = plain(**batch(family)).loss
    model, _ = attach_method(method, family)
    for _, delta in find_deltas(model):  # their own dropouts would draw from the generator too
        for module in delta.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    model.train()
    torch.manual_seed(3)
    assert torch.equal(model(**batch(family)).loss, expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["mam", "houlsby", "prompt"])
def test_a_copy_has_its_own_deltas(method: str, family: str) -> None:
    model, _ = attach_method(method, family)
    twin = copy.deepcopy(model)
    expected = model(**batch(family)).logits
    assert torch.equal(twin(**batch(family)).logits, expected)
    with torch.no_grad():
        for _, delta in find_deltas(twin):
            for parameter in delta.parameters():
                parameter.add_(1.0)
    assert torch.equal(model(**batch(family)).logits, expected)
    assert not torch.equal(twin(**batch(family)).logits, expected)


@pytest.mark.parametrize(("method", "family"), sampled(product(DELTAS, FAMILIES), 4))
def test_the_delta_file_restores_the_model(method: str, family: str, tmp_path: Path) -> None:
    model, config = attach_method(method, family)
    with torch.no_grad():
        for _, delta in find_deltas(model):
            for parameter in delta.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_delta(model, tmp_path, {})
    fresh = backbone(family)
    attach(fresh, build_slots(config, inference=True), config.unfreeze)
    load_delta(fresh, tmp_path)
    torch.testing.assert_close(fresh(**batch(family)).logits, model(**batch(family)).logits)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["mam", "houlsby", "mh_parallel", "prompt"])
def test_gradient_checkpointing_changes_no_gradient(method: str, family: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model, _ = attach_method(method, family)
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(5)
        model(**batch(family)).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_the_stored_count_of_a_prefix_excludes_its_mlp() -> None:
    model, config = attach_method("prefix", "bart")
    table = tabulate_parameters(model, 1)
    assert table["stored"] == 6 * 2 * config.slots()["attn"].bottleneck * 32
    assert table["trained"] == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(UserError, match="matches no parameter"):
        attach(backbone("bart"), {}, ["*.no_such"])


@pytest.mark.parametrize("failing", ["representation", "hooks"])
def test_a_model_is_unchanged_if_attaching_fails(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backbone("bart")
    state, slots = model.state_dict().keys(), build_slots(attach_method("mam", "bart")[1])
    if failing == "representation":
        slots["ffn"] = replace(slots["ffn"], representation={"sites": ["no.such"]})
    else:
        monkeypatch.setattr("unipeft_run.deltas.attach.limit_positions", lambda model: 1 / 0)
    with pytest.raises((UserError, ZeroDivisionError)):
        attach(model, slots)
    assert model.state_dict().keys() == state
    assert all(p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    model.save_pretrained  # noqa: B018, not refused


def test_attaching_twice_is_an_error() -> None:
    model, config = attach_method("mam", "roberta")
    with pytest.raises(ValueError, match="detach"):
        attach(model, build_slots(config))
