"""Load checkpoints of LLM-Adapters (Hu et al., 2023) as models with our deltas.

Its adapters belong to single Linear layers: a parallel one reads the layer's input, a series one
changes the input of `up_proj` and `gate_proj` and the output of `down_proj`. They have no biases.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.fields import BASE, FLAG, PROBABILITY, Rule, one_of
from unipeft_run.backbones.site import Site
from unipeft_run.backbones.sites import find_sites
from unipeft_run.config.messages import shorten, unknown_choice, unknown_key
from unipeft_run.deltas.attach import child_name, freeze, reattach
from unipeft_run.deltas.compositions import LearnedScale, Scaled
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.insertions import parallel, sequential
from unipeft_run.interop.peft_config import check_pattern
from unipeft_run.interop.rules import SIZE, TARGETS, check_scaling, check_values
from unipeft_run.interop.tensors import (
    RemainingTensors,
    cast,
    fill,
    find_dtype,
    load_backbone_tensors,
)

Options = Mapping[str, Any]
WRAPPER = "base_model.model."
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "BOTTLENECK": {
        "bottleneck_size": 256,
        "non_linearity": "tanh",
        "adapter_dropout": 0.0,
        "target_modules": None,
        "use_parallel_adapter": False,
        "use_adapterp": False,
        "scaling": 1.0,
        "bias": "none",
        "init_weights": "bert",
        "modules_to_save": None,
    },
    "LORA": {
        "r": 8,
        "target_modules": None,
        "lora_alpha": None,
        "lora_dropout": 0.0,
        "merge_weights": False,
        "fan_in_fan_out": False,
        "enable_lora": None,
        "bias": "none",
        "modules_to_save": None,
    },
}
IGNORED = ("peft_type", "base_model_name_or_path", "task_type", "inference_mode")
ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "modules_to_save": (None,),
    "enable_lora": (None,),
    "fan_in_fan_out": (False,),
}
ACTIVATIONS = ("tanh", "relu")
RULES: Mapping[str, Mapping[str, Rule]] = {
    "BOTTLENECK": {
        "bottleneck_size": SIZE,
        "adapter_dropout": PROBABILITY,
        "target_modules": TARGETS,
        "use_parallel_adapter": FLAG,
        "use_adapterp": FLAG,
        "init_weights": one_of("bert", "mam_adapter"),
    },
    "LORA": {
        "r": SIZE,
        "target_modules": TARGETS,
        "lora_alpha": BASE,
        "lora_dropout": PROBABILITY,
        "merge_weights": FLAG,
        "fan_in_fan_out": FLAG,
    },
}
# Llama's Linear -> the site where it is adapted in parallel, and in series
PARALLEL = {
    "q_proj": "attn.query",
    "k_proj": "attn.key",
    "v_proj": "attn.value",
    "o_proj": "attn.projection",
    "up_proj": "ffn.up",
    "gate_proj": "ffn.gate",
    "down_proj": "ffn.down",
}
SERIES = {
    "up_proj": "ffn.up_input",
    "gate_proj": "ffn.gate_input",
    "down_proj": "ffn",
}
# the library's own targets, if none are given
DEFAULT_TARGETS = {
    ("BOTTLENECK", "parallel"): ("q_proj", "v_proj", "k_proj"),
    ("BOTTLENECK", "series"): ("gate_proj", "up_proj", "down_proj"),
    ("BOTTLENECK", "adapterp"): ("down_proj",),
    ("LORA", "parallel"): ("q_proj", "v_proj"),
}


def from_llm_adapters(
    options: Options, config: Any, state: Mapping[str, torch.Tensor]
) -> nn.Module:
    """Return the transformers model of `config`, with our deltas and every tensor loaded.

    Args:
        options: the tuner's configuration, as in its adapter_config.json; missing options take the
            tuner's defaults. `peft_type` is BOTTLENECK or LORA.
        config: a transformers configuration of Llama or a relative.
        state: the backbone's tensors under transformers' names, and those of the tuner under its
            own, with or without `base_model.model.`.

    The deltas are trainable. Raises ValueError for an option or a tensor that it cannot take.
    """
    config = deepcopy(config)  # attaching names our attention in it
    table = family_of(config)
    if not all(table.taps(site) for site in PARALLEL.values()):
        raise ValueError(f"family {table.name} is not supported: Llama and its relatives are")
    tuner, complete = _complete(options)
    model: Any = getattr(transformers, table.model)(config)
    cast(model, find_dtype(state), model.buffers())
    remaining = RemainingTensors({name.removeprefix(WRAPPER): t for name, t in state.items()})
    load_backbone_tensors(model, remaining)
    freeze(model, ())
    reattach(model, list(_build_deltas(model, tuner, complete, remaining)))
    if remaining:
        raise ValueError(f"unexpected tensor {min(remaining)}")
    return model.eval()  # type: ignore[no-any-return]


def _complete(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the tuner and all its options. Raises ValueError."""
    tuner = str(getattr(options.get("peft_type"), "value", options.get("peft_type")))
    if tuner not in DEFAULTS:
        raise ValueError(unknown_choice("peft_type", tuner, DEFAULTS))
    given = {key: value for key, value in options.items() if key not in IGNORED}
    for key in given:
        if key not in DEFAULTS[tuner]:
            raise ValueError(unknown_key(str(key), DEFAULTS[tuner]))
    complete = {**DEFAULTS[tuner], **given}
    for key, allowed in ALLOWED.items():
        if key in complete and complete[key] not in allowed:
            value = shorten(complete[key])
            raise ValueError(f"{key}={value} is not supported: must be {allowed[0]}")
    check_values(complete, RULES[tuner])
    return tuner, complete


def _build_deltas(
    model: Any, tuner: str, options: Options, remaining: RemainingTensors
) -> Iterator[tuple[str, Delta]]:
    """Yield path and loaded delta of every adapted Linear."""
    series = tuner == "BOTTLENECK" and not options["use_parallel_adapter"]
    rows = SERIES if series else PARALLEL
    build = _bottleneck if tuner == "BOTTLENECK" else _lora
    is_target = _match_targets(tuner, options, series)
    found = 0
    for linear, representation in rows.items():
        for site in list(find_sites(model, model.config, sites=[representation])):
            path = _linear_path(site, linear)
            if not is_target(path):
                continue
            found += 1
            delta = build(site, options, series).to(model.dtype)
            for parameter, name in _tensors(delta, path, tuner):
                fill(parameter, name, remaining.pop(name))
            yield f"{site.write.path}.{child_name('matrix', site)}", delta
    if not found:
        raise ValueError(f"target_modules={options['target_modules']} matches no Linear")


def _match_targets(tuner: str, options: Options, series: bool) -> Callable[[str], bool]:
    """Return the predicate of target_modules on the paths of Linear layers."""
    targets = options["target_modules"]
    if isinstance(targets, str):
        check_pattern("target_modules", pattern := targets)
        return lambda path: re.fullmatch(pattern, path) is not None
    if targets is None:
        way = "series" if series else "parallel"
        if series and options["use_adapterp"]:
            way = "adapterp"
        targets = DEFAULT_TARGETS[tuner, way]
    rows = SERIES if series else PARALLEL
    for target in targets:
        if target.rpartition(".")[2] not in rows:
            way = "in series" if series else "in parallel"
            raise ValueError(f"target_modules: {target} cannot be adapted {way}: {', '.join(rows)}")
    return lambda path: path.endswith(tuple(targets))


def _linear_path(site: Site, linear: str) -> str:
    """Return the path of the Linear `linear` at a site, which may be that of the whole FFN."""
    path = site.write.path
    return path if path.endswith(linear) else f"{path}.{linear}"


def _bottleneck(site: Site, options: Options, series: bool) -> Delta:
    word, scaling = options["non_linearity"], options["scaling"]
    if word not in ACTIVATIONS:
        raise ValueError(unknown_choice("non_linearity", word, ACTIVATIONS))
    check_scaling(scaling)
    form = Bottleneck(
        site,
        rank=options["bottleneck_size"],
        activation=word,
        bias=False,
        dropout=0.0,
        input_dropout=options["adapter_dropout"],
    )
    composition = LearnedScale if scaling == "learned" else partial(Scaled, scale=scaling)
    return Delta(site, form, sequential if series else parallel, composition(site))


def _lora(site: Site, options: Options, series: bool) -> Delta:
    rank = options["r"]
    form = Bottleneck(
        site,
        rank=rank,
        activation="identity",
        bias=False,
        init="lora",
        dropout=0.0,
        input_dropout=options["lora_dropout"],
    )
    return Delta(site, form, parallel, Scaled(site, scale=options["lora_alpha"] / rank))


def _tensors(delta: Delta, path: str, tuner: str) -> Iterator[tuple[torch.Tensor, str]]:
    """Yield each parameter of a delta with its name in the tuner."""
    form = delta.form
    assert isinstance(form, Bottleneck)
    names = ("lora_A", "lora_B") if tuner == "LORA" else ("adapter_down", "adapter_up")
    yield form.down.weight, f"{path}.{names[0]}.weight"
    yield form.up.weight, f"{path}.{names[1]}.weight"
    if isinstance(delta.composition, LearnedScale):
        yield delta.composition.scale, f"{path}.adapter_scaling"
