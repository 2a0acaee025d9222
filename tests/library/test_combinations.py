"""Several active deltas equal one larger delta; what has no meaning is refused."""

import copy
from typing import Any

import pytest
import torch
from named_deltas import attach_perturbed, delta_names, double, logits, perturb
from tiny import batch
from torch import nn

import unipeft
from unipeft_run.deltas.attach import find_deltas
from unipeft_run.errors import UserError

NARROW, WIDE = 3, 8  # the second delta is 5 wide
# methods of one slot whose parts have a form that is a sum over its units
SUMS = [
    ("lora_attn", "roberta"),
    ("scaled_parallel_ffn", "mbart"),
    ("parallel_ffn", "roberta"),
    ("adapter_ffn", "bart"),
    ("pfeiffer", "bart"),
    ("pfeiffer", "mbart"),
    ("prefix_nomlp", "bart"),
    ("prefix_nomlp", "roberta"),
]


def split(source: nn.Module, start: int, stop: int, target: nn.Module) -> None:
    """Copy units start to stop of a wide form into a narrow one; the second has no outer bias."""
    tensors = dict(source.named_parameters())
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            wide = tensors[name]
            if wide.shape == parameter.shape:
                parameter.copy_(wide if start == 0 else torch.zeros_like(wide))
            elif name.startswith("up."):
                parameter.copy_(wide[:, start:stop])
            else:
                parameter.copy_(wide[start:stop])


def wide_and_split(method: str, family: str, strength: float = 0.2) -> tuple[Any, Any]:
    """Return a model with one delta, and one with its units as two deltas a and b, active."""
    wide, halves = double(family), double(family)
    attach_perturbed(wide, method, strength=strength, bottleneck=WIDE, head="frozen")
    sources = [delta.form for _, delta in find_deltas(wide)]
    for name, start, stop in (("a", 0, NARROW), ("b", NARROW, WIDE)):
        unipeft.attach(halves, method, name=name, bottleneck=stop - start, head="frozen")
        for source, (_, delta) in zip(sources, find_deltas(halves), strict=True):
            split(source, start, stop, delta.form)
    unipeft.activate(halves, ["a", "b"])
    return wide, halves


def assert_close(first: torch.Tensor, second: torch.Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method, family", SUMS)
def test_two_deltas_equal_one_of_both_widths(method: str, family: str) -> None:
    wide, halves = wide_and_split(method, family)
    assert unipeft.active(halves) == ["a", "b"]
    assert_close(logits(halves, family), logits(wide, family))
    unipeft.activate(halves, ["b", "a"])
    assert_close(logits(halves, family), logits(wide, family))
    unipeft.activate(halves, "a")
    assert float((logits(halves, family) - logits(wide, family)).abs().max()) > 1e-6


def test_gradients_reach_both_deltas() -> None:
    wide, halves = wide_and_split("prefix_nomlp", "bart")
    for model in (wide, halves):
        model(**batch("bart")).loss.backward()
    path = "model.encoder.layers.0.self_attn.delta_attn.form"
    joined: Any = halves.get_submodule(path)
    parts = torch.cat([form.keys.grad for form, _ in joined.parts])
    assert_close(parts, wide.get_submodule(path).keys.grad)


def test_two_relu_memories_add_up() -> None:
    model, wide = double("roberta"), double("roberta")
    settings = {"mlp_width": None, "head": "frozen"}
    attach_perturbed(wide, "mh_parallel", bottleneck=WIDE, **settings)
    sources = [delta.form for _, delta in find_deltas(wide)]
    scaled = {"composition": "scaled", "scale": 0.5}
    unipeft.attach(model, "mh_parallel", name="a", bottleneck=NARROW, **settings)
    for source, (_, delta) in zip(sources, find_deltas(model), strict=True):
        split(source, 0, NARROW, delta.form)
    unipeft.attach(
        model, "mh_parallel", name="b", attn=scaled, bottleneck=WIDE - NARROW, **settings
    )
    for source, (_, delta) in zip(sources, find_deltas(model), strict=True):
        split(source, NARROW, WIDE, delta.form)
        with torch.no_grad():
            delta.form.values.mul_(2)
    unipeft.activate(model, ["a", "b"])
    assert_close(logits(model, "roberta"), logits(wide, "roberta"))


def test_generation_uses_both_prefixes() -> None:
    wide, halves = wide_and_split("prefix_nomlp", "bart", strength=20.0)
    inputs = {key: batch("bart")[key] for key in ("input_ids", "attention_mask")}
    decoding = {"num_beams": 2, "max_length": 12}
    expected = unipeft.generate(wide, **inputs, decoding=decoding)
    found = unipeft.generate(halves, **inputs, decoding=decoding)
    assert torch.equal(found, expected)
    unipeft.activate(halves, "b")
    assert not torch.equal(unipeft.generate(halves, **inputs, decoding=decoding), expected)


@pytest.mark.parametrize("first, second", [("mam", "lora_attn"), ("prompt", "mam")])
def test_a_combination_survives_a_copy_and_ends(first: str, second: str) -> None:
    model = double("bart")
    plain = logits(model, "bart")
    sizes = {"mam": {"bottleneck": 4}, "lora_attn": {"bottleneck": 2}, "prompt": {"bottleneck": 3}}
    attach_perturbed(model, first, **sizes[first])
    alone = logits(model, "bart")
    attach_perturbed(model, second, **sizes[second])
    unipeft.activate(model, [first, second])
    both = logits(model, "bart")
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin, "bart"), both)
    unipeft.activate(model, first)
    assert torch.equal(logits(model, "bart"), alone)
    unipeft.activate(model, None)
    assert torch.equal(logits(model, "bart"), plain)
    assert not delta_names(model)
    assert torch.equal(logits(twin, "bart"), both)


def test_several_deltas_at_one_place_keep_their_parameter_names() -> None:
    model = double("roberta")
    for name in ("a", "b", "c"):
        unipeft.attach(model, "parallel_ffn", name=name, bottleneck=2, head="frozen")
    unipeft.activate(model, ["a", "b", "c"])
    names = [path.rpartition(".")[2] for path in delta_names(model)]
    assert names == ["delta_ffn", "delta_ffn__b", "delta_ffn__c"] * 2
    perturb(model)
    before = logits(model, "roberta")
    unipeft.detach(model, "b")
    assert unipeft.active(model) == ["a", "c"]
    assert float((logits(model, "roberta") - before).abs().max()) > 1e-3


@pytest.mark.parametrize(
    "family, first, second, message",
    [
        ("bart", "prompt", "prompt", "both put vectors before the input"),
        ("bart", "bitfit", "bitfit", "both change the backbone's .*bias"),
        ("roberta", "mam", "lora_attn", r"both change the backbone's classifier\.dense"),
        ("bart", "prefix", "mh_parallel", "memories can be combined only if"),
        ("bart", "mh_parallel", "mh_parallel", "memories can be combined only if"),
    ],
)
def test_a_combination_without_a_meaning_is_refused(
    family: str, first: str, second: str, message: str
) -> None:
    model = double(family)
    for name, method in (("a", first), ("b", second)):
        size = {} if method == "bitfit" else {"bottleneck": 2}
        attach_perturbed(model, method, name=name, **size)
    expected = logits(model, family)
    with pytest.raises(UserError, match=f"a and b cannot be active together: .*{message}"):
        unipeft.activate(model, ["a", "b"])
    assert unipeft.active(model) == ["b"]
    assert torch.equal(logits(model, family), expected)
    with pytest.raises(UserError, match="a is named twice"):
        unipeft.activate(model, ["a", "a"])


@pytest.mark.parametrize("method, family", [("lora_ffn", "bart"), ("parallel_ffn", "roberta")])
def test_a_sum_folds(method: str, family: str) -> None:
    _, halves = wide_and_split(method, family)
    folded = unipeft.fold(halves)
    assert not delta_names(folded)
    assert_close(logits(folded, family), logits(halves, family))


def test_joined_prefixes_fold_into_one() -> None:
    _, halves = wide_and_split("prefix_nomlp", "bart")
    folded = unipeft.fold(halves)
    assert_close(logits(folded, "bart"), logits(halves, "bart"))
    form: Any = folded.get_submodule("model.encoder.layers.0.self_attn.delta_attn.form")
    assert form.keys.shape == (WIDE, 32)
    assert dict(form.named_parameters()).keys() == {"keys", "values"}


def test_a_sum_of_sequential_changes_does_not_fold() -> None:
    model = double("roberta")
    linear = {"form": "low_rank"}
    for name in ("a", "b"):
        attach_perturbed(model, "adapter_ffn", name=name, ffn=linear, bottleneck=2, head="frozen")
    unipeft.activate(model, ["a", "b"])
    with pytest.raises(UserError, match="another delta writes to the same place"):
        unipeft.fold(model)


def test_a_sum_of_changes_to_the_input_of_a_weight_does_not_fold() -> None:
    model = double("roberta")
    choices = {"form": "low_rank", "representation": "ffn_hidden", "composition": "add"}
    parallel = {**choices, "insertion": "parallel", "bottleneck": 2}
    for name in ("a", "b"):
        unipeft.attach(model, ffn=parallel, name=name, head="frozen")
        perturb(model)
    unipeft.fold(model)  # one of them does
    unipeft.activate(model, ["a", "b"])
    with pytest.raises(UserError, match="another delta writes to the same place"):
        unipeft.fold(model)
