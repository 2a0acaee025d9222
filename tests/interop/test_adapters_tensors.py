"""Tensors of `adapters` that do not fit the options are refused by name, and every row is used."""

from __future__ import annotations

from typing import Any

import golden_peers
import pytest
import torch
import transformers
from golden_cases import is_close

from unipeft_run.interop.adapters import from_adapters

State = dict[str, torch.Tensor]


def load(case: str) -> tuple[dict[str, Any], Any, State]:
    """Return the options, the configuration and the tensors of a recorded case."""
    meta, tensors = golden_peers.load(f"cases/{case}")
    config, state, _ = golden_peers.backbone(meta["family"])
    return meta["options"], config, {**state, **golden_peers.inputs_of(tensors, "state")}


def is_adapters(name: str) -> bool:
    return ".a." in name


def replaced(state: State, ending: str, change: Any) -> State:
    """Return the tensors, with those of a name that ends with `ending` changed."""
    found = {name: change(tensor) for name, tensor in state.items() if name.endswith(ending)}
    assert found
    return {**state, **found}


@pytest.mark.parametrize("case", ["t5__prefix_tuning", "gpt2__prefix_tuning_flat"])
def test_a_prefix_of_more_layers_is_refused(case: str) -> None:
    options, config, state = load(case)
    with pytest.raises(ValueError, match=r"the tensor prefix_pool\.a\.\w+\.control_trans.* make"):
        from_adapters({**options, "leave_out": [1]}, config, state)


@pytest.mark.parametrize(
    ("case", "ending"),
    [
        ("llama__prefix_tuning", "control_trans.2.weight"),
        ("llama__prefix_tuning", "control_trans.2.bias"),
        ("gpt2__prefix_tuning_flat", "control_trans"),
        ("llama__ia3", "k_proj.loras.a.lora_B"),
        ("gpt2__ia3", "c_attn.loras.a.lora_B"),
        ("gpt2__unipelt", "c_attn.loras.a.lora_A"),
        ("gpt2__unipelt", "c_attn.loras.a.gate.weight"),
        ("bert__compacter", "adapter_up.W_left"),
    ],
)
@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: torch.cat([tensor, tensor]),
        lambda tensor: tensor[:-1],
        lambda tensor: tensor[:0],
        lambda tensor: tensor[None],
        lambda tensor: tensor[..., None].repeat_interleave(2, -1),
        lambda tensor: tensor.sum(),
    ],
)
def test_another_shape_is_refused_by_name(case: str, ending: str, change: Any) -> None:
    options, config, state = load(case)
    with pytest.raises(ValueError, match=rf"the tensor \S+{ending} is \["):
        from_adapters(options, config, replaced(state, ending, change))


def test_a_flat_prefix_need_not_be_contiguous() -> None:
    options, config, state = load("gpt2__prefix_tuning_flat")
    strided = replaced(state, "control_trans", lambda t: torch.stack([t, t], -1)[:, 0])
    model, expected = (from_adapters(options, config, s) for s in (strided, state))
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("key", "value", "needed"), [("alpha", 3, "1"), ("alpha", 8, "1"), ("dropout", 0.1, "0.0")]
)
def test_ia3_takes_no_alpha_and_no_dropout(key: str, value: float, needed: str) -> None:
    options, config, state = load("llama__ia3")
    with pytest.raises(ValueError, match=f"mode=scale needs {key}={needed}, not {value}"):
        from_adapters({**options, key: value}, config, state)


def test_a_wide_ia3_vector_is_refused() -> None:
    options, config, state = load("llama__ia3")
    wide = replaced(state, "k_proj.loras.a.lora_B", lambda t: torch.cat([t, t + 1], 1))
    with pytest.raises(ValueError, match=r"lora_B is \[16, 2\]; .* make it \[16, 1\]"):
        from_adapters(options, config, wide)


def test_prompt_tuning_of_roberta_is_refused() -> None:
    config = transformers.RobertaConfig(hidden_size=32, num_hidden_layers=1)
    with pytest.raises(ValueError, match="prompt tuning of adapters is not supported for roberta"):
        from_adapters({"architecture": "prompt_tuning"}, config, {})


def test_an_adapter_of_cross_attention_needs_none_of_self_attention() -> None:
    options, config, state = load("t5__double_seq_bn")
    meta, tensors = golden_peers.load("cases/t5__double_seq_bn")
    inputs = golden_peers.inputs_of({**golden_peers.backbone("t5")[2], **tensors})
    of_self = [n for n in state if is_adapters(n) and ".layer.0.adapters." in n]
    names = [n for n in of_self if n.startswith("decoder.")]
    of_cross = {n.replace(".layer.0.", ".layer.1."): state[n] + 0.1 for n in names}
    both = {**state, **of_cross, **{n: torch.zeros_like(state[n]) for n in of_self}}
    alone = {n: tensor for n, tensor in both.items() if n not in of_self}
    options = {**options, "cross_adapter": True}
    model: Any = from_adapters({**options, "mh_adapter": False}, config, alone)
    expected: Any = from_adapters(options, config, both)
    plain: Any = from_adapters(meta["options"], config, {n: both[n] for n in state})
    assert is_close(model(**inputs).logits, expected(**inputs).logits)
    assert not is_close(model(**inputs).logits, plain(**inputs).logits)


def test_cross_adapter_changes_nothing_without_cross_attention() -> None:
    options, config, state = load("llama__par_bn_s1")
    assert from_adapters({**options, "cross_adapter": True}, config, state)
