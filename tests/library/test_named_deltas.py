"""Several named deltas on one backbone: switching, switching off, copying, training, detaching."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from named_deltas import attach_perturbed, delta_names, logits
from tiny import backbone, batch

import unipeft
from unipeft_run.errors import UserError
from unipeft_run.inference.loaded_run import LoadedRun
from unipeft_run.library.attach import add_delta

FAMILIES = ["bart", "mbart", "roberta"]


def two_deltas(family: str) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a model with deltas de and en, and the logits of none, de and en."""
    model = backbone(family)
    plain = logits(model, family)
    attach_perturbed(model, "mam", 1, name="de", bottleneck=8)
    de = logits(model, family)
    attach_perturbed(model, "bitfit", 2, name="en")
    return model, plain, de, logits(model, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_switching_changes_nothing_but_the_active_delta(family: str) -> None:
    model, plain, de, en = two_deltas(family)
    assert not torch.equal(plain, de) and not torch.equal(plain, en)
    for names, expected in (("de", de), (None, plain), ("en", en), ("de", de), ([], plain)):
        unipeft.activate(model, names)
        assert torch.equal(logits(model, family), expected)
    assert unipeft.active(model) == []
    assert list(unipeft.attached(model)) == ["de", "en"]


@pytest.mark.parametrize(
    "method, family",
    [
        ("mam", "bart"),
        ("mam", "mbart"),
        ("mam", "roberta"),
        ("prompt", "bart"),
        ("prompt", "roberta"),
        ("houlsby", "mbart"),
        ("pfeiffer", "bart"),
        ("full", "roberta"),
    ],
)
def test_disabled_is_the_plain_backbone_bit_for_bit(method: str, family: str) -> None:
    plain, model = backbone(family), backbone(family)
    attach_perturbed(model, method)
    expected = logits(model, family)
    with unipeft.disabled(model):
        assert unipeft.active(model) == []
        assert model.config._attn_implementation == plain.config._attn_implementation
        assert model.state_dict().keys() == plain.state_dict().keys()
        assert torch.equal(logits(model, family), logits(plain, family))
        losses = []
        for each in (model.train(), plain.train()):
            torch.manual_seed(3)
            losses.append(each(**batch(family)).loss)
        assert torch.equal(*losses)
        model.eval()
    assert unipeft.active(model) == [method]
    assert torch.equal(logits(model, family), expected)


def test_an_error_inside_disabled_reactivates_the_delta() -> None:
    model, _, _, en = two_deltas("roberta")
    with pytest.raises(RuntimeError), unipeft.disabled(model):
        raise RuntimeError
    assert torch.equal(logits(model, "roberta"), en)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_has_its_own_deltas(duplicate: Any) -> None:
    model, plain, de, en = two_deltas("roberta")
    unipeft.activate(model, "de")
    twin = duplicate(model)
    unipeft.activate(twin, "en")
    assert torch.equal(logits(twin, "roberta"), en)
    attach_perturbed(twin, "lora_attn", 3, bottleneck=2)
    unipeft.activate(twin, "de")
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    assert unipeft.active(model) == ["de"]
    assert list(unipeft.attached(model)) == ["de", "en"]
    assert torch.equal(logits(model, "roberta"), de)
    with unipeft.disabled(model):
        assert torch.equal(logits(model, "roberta"), plain)


def test_only_the_active_delta_trains_and_its_optimiser_survives_a_switch() -> None:
    model, plain, de, en = two_deltas("roberta")
    unipeft.activate(model, "de")
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all("delta_" in name or name.startswith("classifier.") for name in trained)
    optimizer = torch.optim.AdamW(trained.values(), lr=0.05)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        model(**batch("roberta")).loss.backward()
        optimizer.step()
        with unipeft.disabled(model):
            assert not any(p.requires_grad for p in model.parameters())
            torch.testing.assert_close(logits(model.eval(), "roberta"), plain, rtol=0, atol=0)
        model.train()
    model.eval()
    assert not torch.equal(logits(model, "roberta"), de)
    unipeft.activate(model, "en")
    assert torch.equal(logits(model, "roberta"), en)
    assert not {name for name, p in model.named_parameters() if p.requires_grad} & {*trained} - {
        name for name in trained if name.startswith("classifier.")
    }


@pytest.mark.parametrize("method", ["bitfit", "lora_attn", "peft/lora"])
def test_frozen_parameters_have_no_gradient_and_accumulation_continues(method: str) -> None:
    if method.startswith("peft/"):
        pytest.importorskip("peft")

    def backward() -> None:
        model(**batch("roberta")).loss.backward()

    model = backbone("roberta")
    backward()
    with pytest.raises(UserError):
        unipeft.attach(model, method, name="one", unfreeze="nothing*")
    assert model.roberta.embeddings.word_embeddings.weight.grad is not None
    unipeft.attach(model, method, name="one", unfreeze="*LayerNorm*")
    assert all(p.grad is None for p in model.parameters())
    backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    with unipeft.disabled(model):
        assert all(p.grad is None for p in model.parameters())
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    unipeft.attach(model, "lora_ffn", name="two", head="frozen")
    assert all(p.grad is None for p in model.parameters())


def test_detaching_one_keeps_the_others_and_detaching_all_restores_the_model() -> None:
    model, plain, _, en = two_deltas("bart")
    unipeft.detach(model, "de")
    assert torch.equal(logits(model, "bart"), en)
    assert list(unipeft.attached(model)) == ["en"]
    with pytest.raises(UserError, match="name=de is unknown"):
        unipeft.activate(model, "de")
    unipeft.detach(model)
    fresh = backbone("bart")
    assert vars(model).keys() == vars(fresh).keys()
    assert torch.equal(logits(model, "bart"), plain)
    assert all(p.requires_grad for p in model.parameters())
    unipeft.detach(model)  # nothing to do


def test_detaching_restores_which_parameters_trained() -> None:
    model = backbone("roberta")
    model.roberta.embeddings.requires_grad_(False)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    unipeft.attach(model, "bitfit")
    unipeft.detach(model, "bitfit")
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before


def test_an_inactive_delta_follows_the_type_of_the_model() -> None:
    model, _, de, _ = two_deltas("bart")
    model.double()
    unipeft.activate(model, "de")
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    torch.testing.assert_close(logits(model, "bart").float(), de, rtol=1e-4, atol=1e-4)


def test_float32_deltas_stay_so_on_a_bfloat16_backbone() -> None:
    model = backbone("bart").bfloat16()
    unipeft.attach(model, "mam", bottleneck=8)
    assert delta_names(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    for path in delta_names(model):
        model.get_submodule(path).float()
    unipeft.attach(model, "bitfit")
    unipeft.activate(model, "mam")
    for path in delta_names(model):
        assert {p.dtype for p in model.get_submodule(path).parameters()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(**batch("bart")).loss.backward()


def test_two_deltas_of_one_name_and_unknown_names_are_refused() -> None:
    model, *_, en = two_deltas("roberta")
    with pytest.raises(UserError, match="already has a delta en"):
        unipeft.attach(model, "mam", name="en")
    for call in (unipeft.activate, unipeft.detach):
        with pytest.raises(UserError, match="name=enn is unknown"):
            call(model, "enn")
    assert torch.equal(logits(model, "roberta"), en)
    with pytest.raises(UserError, match="has no deltas; see unipeft"):
        unipeft.activate(backbone("bart"), "de")


def test_a_failed_attach_reactivates_what_acted() -> None:
    model, *_, en = two_deltas("roberta")
    with pytest.raises(UserError, match="layer 9"):
        unipeft.attach(model, "mam", **{"ffn.representation.layers": [9]})
    assert unipeft.active(model) == ["en"]
    assert torch.equal(logits(model, "roberta"), en)


def test_resized_embeddings_are_refused_until_they_are_as_before() -> None:
    model = backbone("bart")
    unipeft.attach(model, "full")
    unipeft.attach(model, "lora_attn")
    for acts, other in (("full", None), ("lora_attn", "full")):
        unipeft.activate(model, acts)
        model.resize_token_embeddings(100)
        with pytest.raises(UserError, match=r"shared.weight is \[100, 32\], but was \[96, 32\]"):
            unipeft.activate(model, other)
        assert unipeft.active(model) == [acts]
        model.resize_token_embeddings(96)
        unipeft.activate(model, other)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "DataParallel": torch.nn.DataParallel,
    "OptimizedModule": lambda model: torch.compile(model, backend="eager"),
    "LoadedRun": lambda model: LoadedRun(Path(), *[None] * 2, model, ""),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", WRAPPERS)
@pytest.mark.parametrize(
    "call",
    [
        lambda model: unipeft.save(model, "nowhere"),
        lambda model: unipeft.activate(model, None),
        unipeft.attached,
        unipeft.active,
        unipeft.fold,
        unipeft.detach,
    ],
)
def test_a_wrapper_of_a_model_is_refused(call: Any, kind: str) -> None:
    model = backbone("roberta")
    unipeft.attach(model, "lora_attn", bottleneck=2)
    wrapper = WRAPPERS[kind](model)
    with pytest.raises(UserError, match=f"{kind} wraps the model: pass the model itself, not its"):
        call(wrapper)
    assert unipeft.active(model) == ["lora_attn"]


def test_a_compiled_model_cannot_be_switched() -> None:
    model, *_ = two_deltas("roberta")
    model.compile(backend="eager")
    with pytest.raises(UserError, match="compiled code would ignore the switch"):
        unipeft.activate(model, "de")


@pytest.mark.parametrize("in_place", [False, True])
def test_nothing_is_attached_to_a_compiled_model(in_place: bool, tmp_path: Path) -> None:
    model: Any = backbone("roberta")
    attach_perturbed(model, "lora_attn", bottleneck=2)
    unipeft.save(model, tmp_path)
    plain: Any = backbone("roberta")
    compiled = torch.compile(plain, backend="eager")
    if in_place:
        compiled = plain
        plain.compile(backend="eager")
    for call in (unipeft.attach, unipeft.load):
        with pytest.raises(UserError, match="compiled code would ignore the delta"):
            call(compiled, tmp_path if call is unipeft.load else "lora_attn")
    with pytest.raises(UserError, match="compiled code would ignore the delta"):
        add_delta(compiled, "de", {"unfreeze": []}, {})
    assert not delta_names(plain)
