"""Checkpoints of the paper's own code, as models with our deltas.

The official names are those of jxhe/unify-parameter-efficient-tuning at 3222ce2c0.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn

from unipeft_run.backbones.sites import table_of
from unipeft_run.deltas.attach import Slot, attach, find_deltas
from unipeft_run.deltas.compositions import Add, Gated, LearnedScale, Prepend, Scaled
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.forms.vectors import Vectors
from unipeft_run.interop.official_names import PROMPT, named_parameters, used_nowhere
from unipeft_run.interop.options import completed

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


class Left(dict[str, torch.Tensor]):
    """The official tensors that have no place yet, by name; a missing one is an error."""

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self:
            raise ValueError(f"the state has no tensor {name}")
        return super().__getitem__(name)

    def pop(self, name: str, *_: Any) -> torch.Tensor:
        tensor = self[name]
        del self[name]
        return tensor


def from_official(options: Options, config: Any, state: Tensors) -> nn.Module:
    """The transformers model of `config`, our deltas attached, every official tensor loaded.

    Args:
        options: the official tune options; one that is left out has its official default.
        config: a transformers configuration (BART, mBART or RoBERTa).
        state: official names, with or without the wrapper's prefix, to tensors.

    What trains is what the official naming rule lets train. Raises ValueError for an option or a
    tensor that it cannot take.
    """
    slots = slots_of(options)
    config = deepcopy(config)  # attaching names our attention in it
    model = getattr(transformers, table_of(config).model)(config)
    kinds = (tensor.dtype for tensor in state.values() if tensor.is_floating_point())
    model.to(next(kinds, torch.float32))
    left = Left({name.removeprefix(WRAPPER): tensor for name, tensor in state.items()})
    _load_backbone(model, left)
    attach(model, slots, unfreeze_of(options, model))
    for path, delta in find_deltas(model):
        for parameter, name, rows in named_parameters(path, delta, left):
            parameter.requires_grad_(_trains(name, options))
            _fill(parameter, name, left[name][rows])
    _check_rest(model, left, options)
    return model.eval()  # type: ignore[no-any-return]


def slots_of(options: Options) -> dict[str, Slot | None]:
    """The three slots that say what the official options say."""
    options = _complete(options)
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


def _complete(options: Options) -> Options:
    """With the defaults, every word known, a gate only where a prefix is. Raises ValueError."""
    options = completed(options)
    mode, gated = options["attn_mode"], options["attn_composition"] == "gate_add"
    if gated and mode != "none" and not mode.startswith("prefix"):
        raise ValueError(
            f"attn_composition gate_add: there is no prefix to gate with attn_mode {mode!r}"
        )
    return options


def _choose(options: Options, name: str, words: Any) -> Any:
    if options[name] not in words:
        raise ValueError(f"{name} {options[name]!r} is none of {', '.join(words)}")
    return options[name]


def _words(options: Options) -> list[str]:
    """A parameter trains if its official name holds one of these (reference 2)."""
    options = completed(options)
    if options["attn_mode"] == "bitfit":
        return ["bias"]
    if options["attn_mode"] == options["ffn_mode"] == "none":
        return [""]
    special: dict[str, list[str]] = {"LN": ["attn_layer_norm"], "none": []}
    words = options["unfreeze_params"]
    return special.get(words, words.split(","))


def _trains(name: str, options: Options) -> bool:
    return name.startswith(PROMPT) or any(word in name for word in _words(options))


def unfreeze_of(options: Options, model: nn.Module) -> list[str]:
    """What the official naming rule leaves trainable in the backbone, as patterns."""
    names = [name for name, _ in model.named_parameters()]
    return [f"*{word}*" for word in _words(options) if any(word in name for name in names)]


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


def _fill(parameter: torch.Tensor, name: str, tensor: torch.Tensor) -> None:
    """Raises ValueError where the shapes differ."""
    if parameter.shape != tensor.shape:
        raise ValueError(
            f"the official tensor {name} is {list(tensor.shape)}; "
            f"the options and the configuration make it {list(parameter.shape)}"
        )
    with torch.no_grad():
        parameter.copy_(tensor)


def _copy(parameter: torch.Tensor, tensor: torch.Tensor, path: str) -> None:
    if parameter.shape != tensor.shape:
        ours, theirs = list(parameter.shape), list(tensor.shape)
        raise ValueError(f"{path}: the options ask for the shape {ours}, the state has {theirs}")
    parameter.copy_(tensor)


def _load_backbone(model: nn.Module, left: dict[str, torch.Tensor]) -> None:
    wanted = model.state_dict(keep_vars=True)
    missing = [name for name in wanted if name not in left]
    for name in [name for name in wanted if name in left]:
        _fill(wanted[name], name, left.pop(name))
    tied = {name for name in missing if name.endswith(("embed_tokens.weight", "lm_head.weight"))}
    if rest := sorted(set(missing) - tied - {"final_logits_bias"}):
        raise ValueError(f"the state has no tensor {rest[0]}")


def _check_rest(model: nn.Module, left: Tensors, options: Options) -> None:
    """Whatever the official code builds and never reads may be left, and nothing else."""
    used = {
        name for path, delta in find_deltas(model) for _, name, _ in named_parameters(path, delta)
    }
    for name in sorted(set(left) - used):
        if not used_nowhere(name, completed(options)):
            raise ValueError(f"no place for the official tensor {name}")
