"""Load checkpoints of the paper's code as models with our deltas.

The official names are those of jxhe/unify-parameter-efficient-tuning at 3222ce2c0.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn

from unipeft_run.backbones.families import family_of
from unipeft_run.config.messages import unknown_choice
from unipeft_run.deltas.attach import Slot, attach, find_deltas
from unipeft_run.deltas.compositions import Add, Gated, LearnedScale, Prepend, Scaled
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.forms.vectors import Vectors
from unipeft_run.interop.official_names import PROMPT, is_unused, named_parameters
from unipeft_run.interop.options import complete_options
from unipeft_run.interop.tensors import RemainingTensors, cast, fill, find_dtype

Options = Mapping[str, Any]
Tensors = Mapping[str, torch.Tensor]

WRAPPER = "pretrained_model."
QUERIES: Mapping[str, Any] = {
    "concat": "scaled",
    "cross_attn_noln": "scaled",
    "cross_attn": "normed",
    "cross_attn_relu": "reference",
}
ATTENTION_SITES = {"parallel": "attn.context", "sequential": "attn.output"}
INSERTIONS = {"parallel": "parallel", "sequential": "sequential", "pfeiffer": "post_norm"}


def from_official(options: Options, config: Any, state: Tensors) -> nn.Module:
    """Return the transformers model of `config`, with our deltas and every official tensor loaded.

    Args:
        options: the official tuning options; missing ones take their official default.
        config: a transformers configuration (BART, mBART or RoBERTa).
        state: official names, with or without the wrapper's prefix, to tensors.

    The parameters that the official naming rule trains are trainable. Raises ValueError for an
    option or a tensor that it cannot take.
    """
    options = complete_options(options)
    slots = build_slots(options)
    _check_sizes(options, state)
    config = deepcopy(config)  # attaching names our attention in it
    model = getattr(transformers, family_of(config).model)(config)
    cast(model, find_dtype(state), model.buffers())
    remaining = RemainingTensors({n.removeprefix(WRAPPER): tensor for n, tensor in state.items()})
    _load_backbone(model, remaining)
    attach(model, slots, unfreeze_patterns(options, model))
    for path, delta in find_deltas(model):
        for parameter, name, rows in named_parameters(path, delta, remaining):
            parameter.requires_grad_(_is_trained(name, options))
            fill(parameter, name, remaining[name], rows)
    _check_rest(model, remaining, options)
    return model.eval()  # type: ignore[no-any-return]


def build_slots(options: Options) -> dict[str, Slot | None]:
    """Return the three slots that are equivalent to the official options."""
    options = complete_options(options)
    _check_gate(options)
    mode = options["attn_mode"]
    slots: dict[str, Slot | None] = {"attn": None, "ffn": None, "input": None}
    if mode.startswith("prefix"):
        slots["attn"] = _prefix(options)
    elif mode == "lora":
        slots["attn"] = _lora(options, options["attn_bn"], ["attn.query", "attn.value"])
    elif mode == "adapter":
        slots["attn"] = _attention_adapter(options)
    elif mode == "prompt_tuning":
        form = partial(Vectors, length=options["attn_bn"])
        slots["input"] = _slot(form, ["embedding"], Prepend)
    if options["ffn_mode"] == "lora":
        slots["ffn"] = _lora(options, options["ffn_bn"], ["ffn.up", "ffn.down"])
    elif options["ffn_mode"] == "adapter":
        slots["ffn"] = _ffn_adapter(options)
    return slots


def _check_gate(options: Options) -> None:
    """Raise ValueError for a gate without a prefix."""
    mode, gated = options["attn_mode"], options["attn_composition"] == "gate_add"
    if gated and mode != "none" and not mode.startswith("prefix"):
        raise ValueError(
            f"attn_composition gate_add: there is no prefix to gate with attn_mode {mode!r}"
        )


def _check_sizes(options: Options, state: Tensors) -> None:
    """Raise ValueError for a size that no tensor has, before modules of that size are built."""
    mode = options["attn_mode"]
    used = {
        "attn_bn": mode not in ("none", "bitfit"),
        "mid_dim": mode == "prefix",
        "ffn_bn": options["ffn_mode"] != "none",
    }
    sizes = {size for tensor in state.values() for size in tensor.shape}
    for name, is_used in used.items():
        if is_used and options[name] not in sizes:
            raise ValueError(f"{name}={options[name]}: no tensor of the checkpoint has this size")


def _choose(options: Options, name: str, allowed: Any) -> Any:
    if options[name] not in allowed:
        raise ValueError(unknown_choice(name, options[name], allowed))
    return options[name]


def _trained_substrings(options: Options) -> list[str]:
    """Return the substrings that select trained parameters by their official names."""
    options = complete_options(options)
    if options["attn_mode"] == "bitfit":
        return ["bias"]
    if options["attn_mode"] == options["ffn_mode"] == "none":
        return [""]
    special: dict[str, list[str]] = {"LN": ["attn_layer_norm"], "none": []}
    substrings = options["unfreeze_params"]
    return special.get(substrings, substrings.split(","))


def _is_trained(name: str, options: Options) -> bool:
    return name.startswith(PROMPT) or any(
        substring in name for substring in _trained_substrings(options)
    )


def unfreeze_patterns(options: Options, model: nn.Module) -> list[str]:
    """Return patterns of the backbone parameters that the official naming rule trains."""
    names = [name for name, _ in model.named_parameters()]
    substrings = _trained_substrings(options)
    return [
        f"*{substring}*" for substring in substrings if any(substring in name for name in names)
    ]


def _slot(form: Any, sites: list[str], composition: Any, insertion: str = "parallel") -> Slot:
    return Slot(
        form=form, insertion=insertion, representation={"sites": sites}, composition=composition
    )


def _prefix(options: Options) -> Slot:
    option = _choose(options, "attn_option", QUERIES)
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
    option = _choose(options, "attn_option", ATTENTION_SITES)
    return _slot(form, [ATTENTION_SITES[option]], Add, option)


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
    option = _choose(options, "ffn_option", INSERTIONS)
    site = "ffn.block" if option == "pfeiffer" else "ffn"
    return _slot(form, [site], partial(composition, norm=norm == "out"), INSERTIONS[option])


def _load_backbone(model: nn.Module, remaining: dict[str, torch.Tensor]) -> None:
    wanted = model.state_dict(keep_vars=True)
    missing = [name for name in wanted if name not in remaining]
    for name in [name for name in wanted if name in remaining]:
        fill(wanted[name], name, remaining.pop(name))
    tied = {name for name in missing if name.endswith(("embed_tokens.weight", "lm_head.weight"))}
    if rest := sorted(set(missing) - tied - {"final_logits_bias"}):
        raise ValueError(f"the checkpoint has no tensor {rest[0]}")


def _check_rest(model: nn.Module, remaining: Tensors, options: Options) -> None:
    """Raise ValueError for remaining tensors, except those that the official code never reads."""
    used = {
        name for path, delta in find_deltas(model) for _, name, _ in named_parameters(path, delta)
    }
    for name in sorted(set(remaining) - used):
        if not is_unused(name, complete_options(options)):
            raise ValueError(f"unexpected official tensor {name}")
