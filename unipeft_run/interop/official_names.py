"""The official names of our deltas' parameters, as in the state dictionaries in tests/golden."""

import re
from collections.abc import Container, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from unipeft_run.deltas.compositions import LearnedScale
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.forms.vectors import Vectors
from unipeft_run.interop.tensors import ALL

# our parameter, its official name, and its rows of the official tensor
Named = tuple[torch.Tensor, str, slice]

PROMPT = "prompt_model."
# attention type -> (embedding, MLP, stem of the tables without MLP) of the prefix generator
PREFIXES = {
    ("decoder", "self"): ("wte", "control_trans", "decoder_self_attn"),
    ("decoder", "cross"): ("wte2", "control_trans2", "decoder_cross_attn"),
    ("encoder", "self"): ("wte_enc", "control_trans_enc", "encoder_attn"),
}
MATRICES = ("attn.query", "attn.value", "ffn.up", "ffn.down")
UNUSED_BUFFERS = ("position_ids", "final_logits_bias")


def named_parameters(
    path: str, delta: Delta, known: Container[str] | None = None
) -> Iterator[Named]:
    """Yield each parameter of the delta at `path` with its official name and rows.

    Raises ValueError for a name that is not in `known`.
    """
    for parameter, name, rows in _names(path, delta):
        if known is not None and name not in known:
            raise ValueError(f"the checkpoint has no tensor {name}")
        yield parameter, name, rows


def _names(path: str, delta: Delta) -> Iterator[Named]:
    form = delta.form
    if isinstance(form, Memory):
        yield from _memory(path, form)
    elif isinstance(form, Vectors):  # also for RoBERTa, where the official code has none
        yield form.vectors, "model.encoder.ef_prefix_emb.weight", ALL
    elif isinstance(form, Bottleneck) and delta.site.representation in MATRICES:
        yield form.down.weight, f"{delta.site.write.path}.ef_lora_A", ALL
        yield form.up.weight, f"{delta.site.write.path}.ef_lora_B", ALL
    else:
        yield from _adapter(_adapter_path(path, delta), delta)


def _adapter_path(path: str, delta: Delta) -> str:
    """Return the official path of the adapter at this site."""
    layer = _layer(path)
    parallel = delta.insertion.__name__ == "parallel"
    if delta.site.representation.startswith("ffn"):
        inside = "roberta" in layer and not parallel
        return f"{layer}{'.output' if inside else ''}.ef_ffn_adapter"
    if "roberta" in layer:
        return f"{layer}.attention.{'self' if parallel else 'output'}.ef_attn_adapter"
    return f"{delta.site.write.path.removesuffix('.out_proj')}.ef_attn_adapter"


def _adapter(base: str, delta: Delta) -> Iterator[Named]:
    form: Any = delta.form
    yield from _weight_and_bias(form.down, f"{base}.down_proj")
    yield from _weight_and_bias(form.up, f"{base}.up_proj")
    for norm in (form.norm, getattr(delta.composition, "norm", None)):
        if isinstance(norm, nn.LayerNorm):
            yield from _weight_and_bias(norm, f"{base}.adapter_layer_norm_before")
    if isinstance(delta.composition, LearnedScale):
        yield delta.composition.scale, f"{base}.scale", ALL


def _memory(path: str, form: Memory) -> Iterator[Named]:
    stack = "encoder" if ".encoder." in path and "roberta" not in path else "decoder"
    wte, mlp, table = PREFIXES[stack, "cross" if "encoder_attn" in path else "self"]
    layer = int(_layer(path).rpartition(".")[2])
    if form.norm is not None:
        yield from _weight_and_bias(form.norm, f"{path.rpartition('.')[0]}.ef_transform_layer_norm")
    if "keys" in form._parameters:
        yield form.keys, f"{PROMPT}{table}_key.{layer}.weight", ALL
        yield form.values, f"{PROMPT}{table}_value.{layer}.weight", ALL
        return
    rows = slice(layer * form.head.out_features, (layer + 1) * form.head.out_features)
    yield form.trunk.embedding, f"{PROMPT}{wte}.weight", ALL
    yield from _weight_and_bias(form.trunk.hidden, f"{PROMPT}{mlp}.0")
    for parameter, name, _ in _weight_and_bias(form.head, f"{PROMPT}{mlp}.2"):
        yield parameter, name, rows


def _weight_and_bias(module: Any, name: str) -> Iterator[Named]:
    yield module.weight, f"{name}.weight", ALL
    yield module.bias, f"{name}.bias", ALL


def _layer(path: str) -> str:
    found = re.match(r"(.*?\.layers?\.\d+)", path)
    assert found is not None, path
    return found[1]


def is_unused(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether the official code builds the tensor with these options but never reads it."""
    prefix = options["attn_mode"].startswith("prefix")
    norms = prefix and options["attn_option"] in ("cross_attn", "cross_attn_relu")
    twice = options["ffn_mode"] == "adapter" and options["ffn_option"] == "parallel"
    return (
        name.endswith(UNUSED_BUFFERS)
        or (prefix and name.startswith(PROMPT))
        or (norms and "ef_transform_layer_norm" in name)
        or (twice and ".output.ef_ffn_adapter." in name)
    )
