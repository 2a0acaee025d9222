"""Make random official tensors for any legal options, with the names and shapes in tests/golden."""

from collections.abc import Iterator
from typing import Any

import torch

D, WIDE, LAYERS = 32, 64, 2
Shapes = Iterator[tuple[str, tuple[int, ...]]]


def inserted(family: str, options: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Make the parameters that the official code adds to a backbone: random, in float64."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in _shapes(family, options):
        tensor = 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
        state[name] = tensor + 1.0 if "layer_norm" in name and "weight" in name else tensor
        if name.endswith(".scale"):
            state[name] = torch.tensor([1.7], dtype=torch.float64)
    return state


def _shapes(family: str, o: dict[str, Any]) -> Shapes:
    mode, option, l = o["attn_mode"], o["attn_option"], o["attn_bn"]  # noqa: E741
    for attention in _attentions(family):
        inside = f"{attention}.self" if family == "roberta" else attention
        outside = f"{attention}.output" if family == "roberta" else attention
        if mode == "adapter":
            yield from _adapter(f"{inside if option == 'parallel' else outside}.ef_attn_adapter", l)
            place = inside if option == "parallel" else outside
            yield from _norm(f"{place}.ef_attn_adapter.adapter_layer_norm_before")
        if mode == "lora":
            names = ("query", "value") if family == "roberta" else ("q_proj", "v_proj")
            for name in names:
                yield from _lora(f"{inside}.{name}", D, D, l)
        if mode.startswith("prefix") and option in ("cross_attn", "cross_attn_relu"):
            yield from _norm(f"{inside}.ef_transform_layer_norm")
    if mode.startswith("prefix"):
        yield from _prompts(o)
    if mode == "prompt_tuning":
        yield "model.encoder.ef_prefix_emb.weight", (l, D)
    if o["ffn_mode"] != "none":
        for layer in _layers(family):
            yield from _ffn(family, layer, o)


def _layers(family: str) -> list[str]:
    stacks = ["roberta.encoder.layer"]
    if family != "roberta":
        stacks = ["model.encoder.layers", "model.decoder.layers"]
    return [f"{stack}.{i}" for stack in stacks for i in range(LAYERS)]


def _attentions(family: str) -> Iterator[str]:
    for layer in _layers(family):
        yield f"{layer}.attention" if family == "roberta" else f"{layer}.self_attn"
        if "decoder" in layer:
            yield f"{layer}.encoder_attn"


def _norm(name: str) -> Shapes:
    yield f"{name}.weight", (D,)
    yield f"{name}.bias", (D,)


def _adapter(base: str, r: int) -> Shapes:
    yield f"{base}.down_proj.weight", (r, D)
    yield f"{base}.down_proj.bias", (r,)
    yield f"{base}.up_proj.weight", (D, r)
    yield f"{base}.up_proj.bias", (D,)


def _lora(name: str, into: int, out: int, r: int) -> Shapes:
    yield f"{name}.ef_lora_A", (r, into)
    yield f"{name}.ef_lora_B", (out, r)


def _ffn(family: str, layer: str, o: dict[str, Any]) -> Shapes:
    roberta, r = family == "roberta", o["ffn_bn"]
    if o["ffn_mode"] == "lora":
        yield from _lora(f"{layer}.intermediate.dense" if roberta else f"{layer}.fc1", D, WIDE, r)
        yield from _lora(f"{layer}.output.dense" if roberta else f"{layer}.fc2", WIDE, D, r)
        return
    bases = [f"{layer}.ef_ffn_adapter"]
    if roberta:  # parallel builds both, and reads the outer one
        outer = bases if o["ffn_option"] == "parallel" else []
        bases = [*outer, f"{layer}.output.ef_ffn_adapter"]
    for base in bases:
        yield from _adapter(base, r)
        if o["ffn_adapter_layernorm_option"] != "none":
            yield from _norm(f"{base}.adapter_layer_norm_before")
        if o["ffn_adapter_scalar"] == "learnable_scalar":
            yield f"{base}.scale", (1,)


def _prompts(o: dict[str, Any]) -> Shapes:
    length, m = o["attn_bn"], o["mid_dim"]
    if o["attn_mode"] == "prefix_nomlp":
        for kind in ("encoder_attn", "decoder_self_attn", "decoder_cross_attn"):
            for i in range(LAYERS):
                yield f"prompt_model.{kind}_key.{i}.weight", (length, D)
                yield f"prompt_model.{kind}_value.{i}.weight", (length, D)
        return
    for wte, mlp in (("wte", ""), ("wte2", "2"), ("wte_enc", "_enc")):
        yield f"prompt_model.{wte}.weight", (length, D)
        for number, into, out in (("0", D, m), ("2", m, 2 * LAYERS * D)):
            yield f"prompt_model.control_trans{mlp}.{number}.weight", (out, into)
            yield f"prompt_model.control_trans{mlp}.{number}.bias", (out,)
