"""Checkpoints in bfloat16 keep what transformers computes in float32: the rotary frequencies."""

from __future__ import annotations

from typing import Any

import golden_peers
import pytest
import torch
from transformers import LlamaForCausalLM

from unipeft_run.interop.adapters import from_adapters
from unipeft_run.interop.llm_adapters import from_llm_adapters
from unipeft_run.interop.tensors import cast

LLAMA = ("cases/llama__lora_attn", "llm_adapters_cases/llama__scaled_parallel_4_up_down")
PEFT = ("peft_cases/llama__lora_rslora_qv", "peft_cases/llama__dora_qv")


def load_half(path: str) -> Any:
    """Return the model of a recorded case whose tensors are bfloat16."""
    meta, tensors = golden_peers.load(path)
    config, state, _ = golden_peers.backbone("llama")
    state = {**state, **golden_peers.inputs_of(tensors, "state")}
    half = {name: tensor.bfloat16() for name, tensor in state.items()}
    if path in PEFT:
        pytest.importorskip("peft")
        from unipeft_run.interop.peft import from_peft

        return from_peft(meta["config"], config, half)
    read = from_adapters if path.startswith("cases") else from_llm_adapters
    return read(meta["options"], config, half)


@pytest.mark.parametrize("path", [*LLAMA, *PEFT])
def test_rotary_frequencies_are_those_of_transformers(path: str) -> None:
    model = load_half(path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    expected = dict(LlamaForCausalLM(golden_peers.backbone("llama")[0]).named_buffers())
    buffers = dict(model.named_buffers())
    assert buffers.keys() == expected.keys()
    for name, buffer in buffers.items():
        assert buffer.dtype == torch.float32, name
        assert torch.equal(buffer, expected[name]), name


def test_other_buffers_take_the_type_of_the_model() -> None:
    model = torch.nn.BatchNorm1d(2)
    cast(model, torch.bfloat16, [model.running_mean])  # type: ignore[list-item]
    kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    assert kinds == {
        "weight": torch.bfloat16,
        "bias": torch.bfloat16,
        "running_mean": torch.float32,
        "running_var": torch.bfloat16,
        "num_batches_tracked": torch.int64,
    }
