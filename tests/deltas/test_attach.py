"""Deltas on a backbone: in, out, copied, checkpointed, and every method on every family."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import backbone, batch

from unipeft_run import config as configuration
from unipeft_run.config.schema import SLOTS
from unipeft_run.deltas.attach import attach, deltas, detach
from unipeft_run.deltas.delta_file import load_delta, parameter_table, save_delta
from unipeft_run.errors import UserError
from unipeft_run.experiment import built, folded

CONF = Path(__file__).parents[2] / "conf"
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
TASKS = {"bart": "xsum", "mbart": "wmt16_en_ro", "roberta": "sst2"}
FAMILIES = list(TASKS)
TRAINED = [method for method in METHODS if method != "none"]
DELTAS = [method for method in TRAINED if method not in ("full", "bitfit")]


def composed(method: str, family: str) -> dict[str, Any]:
    words = [f"task={TASKS[family]}", f"method={method}", "scale=mini"]
    return configuration.resolve(configuration.compose(words))


def attached(method: str, family: str, seed: int = 0) -> tuple[Any, dict[str, Any]]:
    cfg, model = composed(method, family), backbone(family)
    torch.manual_seed(seed)
    attach(model, {name: built(cfg[name]) for name in SLOTS}, cfg["unfreeze"])
    return model, cfg


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", TRAINED)
def test_every_method_trains_a_step(method: str, family: str) -> None:
    model, _ = attached(method, family)
    model.train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):  # behind a zero up-projection nothing has a gradient at the first step
        optimizer.zero_grad()
        model(**batch(family)).loss.backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, before[name]), name
        elif ".delta_" in name:
            assert parameter.grad is not None, name
            assert parameter.grad.count_nonzero(), name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", DELTAS)
def test_detaching_leaves_the_backbone_as_it_was(method: str, family: str) -> None:
    plain = backbone(family)
    expected, state = plain(**batch(family)).logits, plain.state_dict()
    model, _ = attached(method, family)
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
def test_a_zero_change_keeps_the_seeded_training_loss(method: str, family: str) -> None:
    plain = backbone(family).train()
    torch.manual_seed(3)
    expected = plain(**batch(family)).loss
    model, _ = attached(method, family)
    for _, delta in deltas(model):  # their own dropouts draw too: none of them here
        for module in delta.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    model.train()
    torch.manual_seed(3)
    assert torch.equal(model(**batch(family)).loss, expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["mam", "houlsby", "prompt"])
def test_a_copy_has_deltas_of_its_own(method: str, family: str) -> None:
    model, _ = attached(method, family)
    twin = copy.deepcopy(model)
    expected = model(**batch(family)).logits
    assert torch.equal(twin(**batch(family)).logits, expected)
    with torch.no_grad():
        for _, delta in deltas(twin):
            for parameter in delta.parameters():
                parameter.add_(1.0)
    assert torch.equal(model(**batch(family)).logits, expected)
    assert not torch.equal(twin(**batch(family)).logits, expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", DELTAS)
def test_the_delta_file_holds_all_that_inference_needs(
    method: str, family: str, tmp_path: Path
) -> None:
    model, cfg = attached(method, family)
    with torch.no_grad():
        for _, delta in deltas(model):
            for parameter in delta.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_delta(model, tmp_path, {})
    cfg |= folded(cfg)
    fresh = backbone(family)
    attach(fresh, {name: built(cfg[name]) for name in SLOTS}, cfg["unfreeze"])
    load_delta(fresh, tmp_path)
    torch.testing.assert_close(fresh(**batch(family)).logits, model(**batch(family)).logits)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["mam", "houlsby", "mh_parallel", "prompt"])
def test_gradient_checkpointing_changes_no_gradient(method: str, family: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model, _ = attached(method, family)
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(5)
        model(**batch(family)).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_a_prefix_counts_without_its_mlp() -> None:
    model, cfg = attached("prefix", "bart")
    table = parameter_table(model, 1)
    assert table["stored"] == 6 * 2 * cfg["attn"]["bottleneck"] * 32
    assert table["trained"] == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_what_matches_nothing_is_an_error() -> None:
    with pytest.raises(UserError, match="matches no parameter"):
        attach(backbone("bart"), {}, ["*.no_such"])


def test_attaching_twice_is_an_error() -> None:
    model, cfg = attached("mam", "roberta")
    with pytest.raises(ValueError, match="detach"):
        attach(model, {"ffn": built(cfg["ffn"])})
