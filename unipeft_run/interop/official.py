"""Checkpoints of the paper's own code, as models with our deltas.

The official names are those of jxhe/unify-parameter-efficient-tuning at 3222ce2c0.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn

from unipeft_run.attach import Slot, attach, deltas
from unipeft_run.backbones.sites import table_of
from unipeft_run.compositions import Add, Gated, LearnedScale, Prepend, Scaled
from unipeft_run.delta import Delta
from unipeft_run.forms.bottleneck import Bottleneck
from unipeft_run.forms.memory import Memory, Query
from unipeft_run.forms.vectors import Vectors

Options = Mapping[str, Any]
Tensors = Mapping[str, torch.Tensor]

WRAPPER = "pretrained_model."
# attention type -> (embedding, MLP, stem of the tables without MLP) of the prefix generator
PREFIXES = {
    ("decoder", "self"): ("wte", "control_trans", "decoder_self_attn"),
    ("decoder", "cross"): ("wte2", "control_trans2", "decoder_cross_attn"),
    ("encoder", "self"): ("wte_enc", "control_trans_enc", "encoder_attn"),
}
QUERIES: Mapping[str, Query] = {
    "concat": "scaled",
    "cross_attn_noln": "scaled",
    "cross_attn": "normed",
    "cross_attn_relu": "reference",
}
UNUSED_BUFFERS = ("position_ids", "final_logits_bias")


def from_official(options: Options, config: Any, state: Tensors) -> nn.Module:
    """The transformers model of `config`, our deltas attached, every official tensor loaded.

    Args:
        options: the official tune options.
        config: a transformers configuration (BART, mBART or RoBERTa).
        state: official names, with or without the wrapper's prefix, to tensors.

    Raises ValueError for an option or a tensor that it cannot take.
    """
    model = getattr(transformers, table_of(config).model)(config)
    model.to(next(t.dtype for t in state.values() if t.is_floating_point()))
    left = {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
    _load_backbone(model, left)
    attach(model, slots_of(options), unfreeze_of(options, model))
    with torch.no_grad():
        for path, delta in deltas(model):
            for parameter, tensor in official_tensors(path, delta, options, left):
                parameter.copy_(tensor)
    _check_rest(left, state, options)
    return model.eval()  # type: ignore[no-any-return]


def slots_of(options: Options) -> dict[str, Slot | None]:
    """The three slots that say what the official options say."""
    mode, ffn = options["attn_mode"], options["ffn_mode"]
    slots: dict[str, Slot | None] = {"attn": None, "ffn": None, "input": None}
    rank = options["attn_bn"]
    if mode.startswith("prefix"):
        slots["attn"] = _prefix(options)
    elif mode == "lora":
        slots["attn"] = _lora(options, rank, ["attn.query", "attn.value"])
    elif mode == "adapter":
        slots["attn"] = _attention_adapter(options)
    elif mode == "prompt_tuning":
        slots["input"] = _slot(partial(Vectors, length=rank), ["embedding"], Prepend)
    elif mode not in ("none", "bitfit"):
        raise ValueError(f"attn_mode {mode!r} is unknown")
    if ffn == "lora":
        slots["ffn"] = _lora(options, options["ffn_bn"], ["ffn.up", "ffn.down"])
    elif ffn == "adapter":
        slots["ffn"] = _ffn_adapter(options)
    elif ffn != "none":
        raise ValueError(f"ffn_mode {ffn!r} is unknown")
    return slots


def unfreeze_of(options: Options, model: nn.Module) -> list[str]:
    """What the official naming rule leaves trainable in the backbone, as patterns."""
    if options["attn_mode"] == "bitfit":
        return ["*bias*"]
    if options["attn_mode"] == options["ffn_mode"] == "none":
        return ["*"]
    names = options["unfreeze_params"]
    words = ["attn_layer_norm"] if names == "LN" else names.split(",")
    return [
        f"*{word}*" for word in words if any(word in name for name, _ in model.named_parameters())
    ]


def _slot(form: Any, sites: list[str], composition: Any, insertion: str = "parallel") -> Slot:
    return Slot(
        form=form, insertion=insertion, representation={"sites": sites}, composition=composition
    )


def _prefix(options: Options) -> Slot:
    option = options["attn_option"]
    if option not in QUERIES:
        raise ValueError(
            f"attn_option {option!r} does not go with attn_mode {options['attn_mode']}"
        )
    if option == "concat" and options["attn_composition"] != "add":
        raise ValueError("attn_option concat is gated already: attn_composition must be add")
    form = partial(
        Memory,
        length=options["attn_bn"],
        activation="relu" if option == "cross_attn_relu" else "softmax",
        query=QUERIES[option],
        mlp_width=options["mid_dim"] if options["attn_mode"] == "prefix" else None,
        dropout=options["prefix_dropout"],
    )
    gated = option == "concat" or options["attn_composition"] == "gate_add"
    return _slot(form, ["attn.heads"], Gated if gated else Add)


def _lora(options: Options, rank: int, sites: list[str]) -> Slot:
    form = partial(
        Bottleneck,
        rank=rank,
        activation="identity",
        bias=False,
        init=options["lora_init"],
        dropout=0.0,
        input_dropout=options["lora_dropout"],
    )
    return _slot(form, sites, partial(Scaled, scale=options["lora_alpha"] / rank))


def _attention_adapter(options: Options) -> Slot:
    form = partial(Bottleneck, rank=options["attn_bn"], norm="in", dropout="attention")
    sites = {"parallel": "attn.context", "sequential": "attn.output"}
    option = options["attn_option"]
    if option not in sites:
        raise ValueError(f"attn_option {option!r}: an attention adapter is parallel or sequential")
    return _slot(form, [sites[option]], Add, option)


def _ffn_adapter(options: Options) -> Slot:
    norm, scalar = options["ffn_adapter_layernorm_option"], options["ffn_adapter_scalar"]
    form = partial(
        Bottleneck,
        rank=options["ffn_bn"],
        norm="in" if norm == "in" else "none",
        init=options["ffn_adapter_init_option"],
    )
    learned = scalar == "learnable_scalar"
    composition = LearnedScale if learned else partial(Scaled, scale=float(scalar))
    insertions = {"parallel": "parallel", "sequential": "sequential", "pfeiffer": "post_norm"}
    option = options["ffn_option"]
    if option not in insertions:
        raise ValueError(f"ffn_option {option!r}: parallel, sequential or pfeiffer")
    site = "ffn.block" if option == "pfeiffer" else "ffn"
    return _slot(form, [site], partial(composition, norm=norm == "out"), insertions[option])


def official_tensors(
    path: str, delta: Delta, options: Options, left: dict[str, torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each parameter of a delta with its official tensor, which is taken out of `left`."""
    form = delta.form
    if isinstance(form, Memory):
        return _memory_tensors(path, form, left)
    if isinstance(form, Vectors):
        return [(form.vectors, left.pop("model.encoder.ef_prefix_emb.weight"))]
    assert isinstance(form, Bottleneck)
    if delta.site.representation in ("attn.query", "attn.value", "ffn.up", "ffn.down"):
        base = delta.site.write.path
        return [
            (form.down.weight, left.pop(f"{base}.ef_lora_A")),
            (form.up.weight, left.pop(f"{base}.ef_lora_B")),
        ]
    return _adapter_tensors(adapter_name(path, delta), delta, left)


def adapter_name(path: str, delta: Delta) -> str:
    """Where the official code keeps the adapter of this site."""
    layer = _layer(path)
    parallel = delta.insertion.__name__ == "parallel"
    if delta.site.representation.startswith("ffn"):
        inside = "roberta" in layer and not parallel
        return f"{layer}{'.output' if inside else ''}.ef_ffn_adapter"
    if "roberta" in layer:
        return f"{layer}.attention.{'self' if parallel else 'output'}.ef_attn_adapter"
    return f"{delta.site.write.path.removesuffix('.out_proj')}.ef_attn_adapter"


def _adapter_tensors(
    base: str, delta: Delta, left: dict[str, torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    form: Any = delta.form
    pairs = [
        (getattr(ours, kind), left.pop(f"{base}.{theirs}.{kind}"))
        for ours, theirs in ((form.down, "down_proj"), (form.up, "up_proj"))
        for kind in ("weight", "bias")
    ]
    for norm in (form.norm, getattr(delta.composition, "norm", None)):
        if isinstance(norm, nn.LayerNorm):
            name = f"{base}.adapter_layer_norm_before"
            pairs += [(norm.weight, left.pop(f"{name}.weight"))]
            pairs += [(norm.bias, left.pop(f"{name}.bias"))]
    if isinstance(delta.composition, LearnedScale):
        pairs.append((delta.composition.scale, left.pop(f"{base}.scale")))
    return pairs


def _memory_tensors(
    path: str, form: Memory, left: dict[str, torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    stack = "encoder" if ".encoder." in path and "roberta" not in path else "decoder"
    kind = "cross" if "encoder_attn" in path else "self"
    wte, mlp, table = PREFIXES[stack, kind]
    layer = int(_layer(path).rpartition(".")[2])
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    if form.norm is not None:
        name = f"{path.rpartition('.')[0]}.ef_transform_layer_norm"
        pairs += [(form.norm.weight, left.pop(f"{name}.weight"))]
        pairs += [(form.norm.bias, left.pop(f"{name}.bias"))]
    if "keys" in form._parameters:
        for ours, theirs in ((form.keys, "key"), (form.values, "value")):
            pairs.append((ours, left.pop(f"prompt_model.{table}_{theirs}.{layer}.weight")))
        return pairs
    rows = slice(layer * form.head.out_features, (layer + 1) * form.head.out_features)
    prompt = "prompt_model."
    trunk = form.trunk
    pairs += [(trunk.embedding, left[f"{prompt}{wte}.weight"])]
    pairs += [(trunk.hidden.weight, left[f"{prompt}{mlp}.0.weight"])]
    pairs += [(trunk.hidden.bias, left[f"{prompt}{mlp}.0.bias"])]
    pairs += [(form.head.weight, left[f"{prompt}{mlp}.2.weight"][rows])]
    pairs += [(form.head.bias, left[f"{prompt}{mlp}.2.bias"][rows])]
    return pairs


def _layer(path: str) -> str:
    found = re.match(r"(.*?\.layers?\.\d+)", path)
    assert found is not None, path
    return found[1]


def _load_backbone(model: nn.Module, left: dict[str, torch.Tensor]) -> None:
    wanted = model.state_dict()
    found = {name: left.pop(name) for name in list(wanted) if name in left}
    missing, _ = model.load_state_dict(found, strict=False)
    tied = {name for name in missing if name.endswith(("embed_tokens.weight", "lm_head.weight"))}
    if rest := sorted(set(missing) - tied - set(UNUSED_BUFFERS)):
        raise ValueError(f"the state has no tensor {rest[0]}")


def _check_rest(left: Mapping[str, torch.Tensor], state: Tensors, options: Options) -> None:
    """Whatever the official code builds and never reads may be left, and nothing else."""
    unused = [*UNUSED_BUFFERS, "ef_transform_layer_norm", "prompt_model."]
    if options["ffn_mode"] == "adapter" and options["ffn_option"] == "parallel":
        unused.append(".output.ef_ffn_adapter.")
    for name in left:
        if not any(word in name for word in unused):
            raise ValueError(f"no place for the official tensor {name}")
