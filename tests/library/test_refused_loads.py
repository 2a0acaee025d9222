"""Refused loads and failed activations leave the model, and what acts on it, as they were."""

from pathlib import Path
from typing import Any

import pytest
import torch
from named_deltas import attach_perturbed, logits
from safetensors.torch import load_file, save_file
from tiny import backbone

import unipeft
from unipeft_run.config.declarations import is_allowed
from unipeft_run.deltas.attach import attach
from unipeft_run.errors import UserError


def saved(folder: Path, method: str = "lora_attn", **settings: Any) -> Path:
    model = backbone("roberta")
    attach_perturbed(model, method, **settings)
    unipeft.save(model, folder)
    return folder


def change_a_shape(folder: Path) -> None:
    tensors = load_file(folder / "delta.safetensors")
    name = max(tensors)  # after others were copied
    tensors[name] = torch.cat([tensors[name], tensors[name]])
    save_file(tensors, folder / "delta.safetensors")
    file = folder / "delta.json"
    file.write_text(file.read_text().replace('"sha256"', '"was"'))


@pytest.mark.parametrize("acting", ["bitfit", "peft/lora"])
@pytest.mark.parametrize("damage", ["shape", "backbone", "pattern"])
def test_a_refused_load_leaves_what_acted(acting: str, damage: str, tmp_path: Path) -> None:
    if acting.startswith("peft/"):
        pytest.importorskip("peft")
    saved(tmp_path, "bitfit")
    model = backbone("roberta")
    attach_perturbed(model, acting, name="acting")
    expected, plain = logits(model, "roberta"), logits(backbone("roberta"), "roberta")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    file = tmp_path / "delta.json"
    if damage == "shape":
        change_a_shape(tmp_path)
    else:
        old = '"vocab_size": 96' if damage == "backbone" else "*bias"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, old.replace("96", "97").replace("bias", "b")))
    with pytest.raises(UserError, match=r"shape|vocab_size=97|matches no parameter"):
        unipeft.load(model, tmp_path)
    assert unipeft.active(model) == list(unipeft.attached(model)) == ["acting"]
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained
    assert torch.equal(logits(model, "roberta"), expected)
    unipeft.detach(model)
    assert torch.equal(logits(model, "roberta"), plain)


@pytest.mark.parametrize("acting", ["full", "bitfit"])
def test_the_plain_weights_decide_whether_a_delta_fits(acting: str, tmp_path: Path) -> None:
    model = backbone("roberta")
    attach_perturbed(model, acting, name="acting")
    unipeft.load(model, saved(tmp_path))
    assert unipeft.active(model) == ["lora_attn"]


def test_a_failed_activation_restores_the_plain_values_and_what_acted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = backbone("roberta")
    plain = logits(model, "roberta")
    for seed, name in enumerate(("one", "two")):
        attach_perturbed(model, "bitfit", seed, name=name)
    expected = logits(model, "roberta")
    with monkeypatch.context() as patch:
        from unipeft_run.library import switch

        place = switch.place_deltas

        def fail(model: Any, named: Any) -> None:
            if "one" in named:
                raise UserError("cannot be placed")
            place(model, named)

        patch.setattr(switch, "place_deltas", fail)
        with pytest.raises(UserError, match="cannot be placed"):
            unipeft.activate(model, "one")
    assert unipeft.active(model) == ["two"]
    assert torch.equal(logits(model, "roberta"), expected)
    unipeft.detach(model)
    assert torch.equal(logits(model, "roberta"), plain)


@pytest.mark.parametrize(
    "prefixes, allowed",
    [("my_forms.", True), (["my_forms."], True), ("m", True), ("n", False), ((), False)],
)
def test_a_string_is_one_prefix(prefixes: Any, allowed: bool) -> None:
    assert is_allowed("my_forms.Gain", prefixes) == allowed


@pytest.mark.parametrize("prefixes", ["torch.nn.", "", [""]])
def test_no_letter_of_a_prefix_and_no_empty_one_trusts_a_class(prefixes: Any) -> None:
    assert not is_allowed("os.path.join", prefixes)


@pytest.mark.parametrize("prefixes", ["nospam.", ("nospam.",)])
def test_load_takes_one_prefix(prefixes: Any, tmp_path: Path) -> None:
    file = saved(tmp_path, bottleneck=2) / "delta.json"
    target = "unipeft_run.deltas.forms.bottleneck.Bottleneck"
    assert target in file.read_text()
    file.write_text(file.read_text().replace(target, "os.path.join"))
    with pytest.raises(UserError, match=r"names the class os\.path\.join"):
        unipeft.load(backbone("roberta"), tmp_path, allow=prefixes)


def test_one_pattern_of_trained_parameters_may_be_a_string() -> None:
    one, several, core = (backbone("roberta") for _ in range(3))
    unipeft.attach(one, "lora_attn", unfreeze="*bias", bottleneck=2)
    unipeft.attach(several, "lora_attn", unfreeze=["*bias"], bottleneck=2)
    attach(core, {}, "*bias")
    trained, expected, biases = (
        {name for name, p in model.named_parameters() if p.requires_grad}
        for model in (one, several, core)
    )
    assert trained == expected
    assert biases and all(name.endswith("bias") for name in biases)


def test_a_prefix_is_saved_without_dropout(tmp_path: Path) -> None:
    model, fresh = backbone("roberta"), backbone("roberta")
    attach_perturbed(model, "prefix", bottleneck=3, **{"attn.form.dropout": 0.5})
    expected = logits(model, "roberta")
    model.train()
    state = torch.random.get_rng_state()
    unipeft.save(model, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    unipeft.load(fresh, tmp_path)
    torch.testing.assert_close(logits(fresh, "roberta"), expected, rtol=0, atol=1e-5)
