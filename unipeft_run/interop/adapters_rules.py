"""The types and ranges of the options of `adapters`, by architecture."""

from collections.abc import Mapping
from typing import Any

from unipeft_run.backbones.fields import (
    BASE,
    DEVIATION,
    FLAG,
    PROBABILITY,
    Rule,
    number,
    one_of,
    whole,
)
from unipeft_run.interop.rules import SEED, SIZE, TEXT, is_names


def _is_layers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(type(i) is int and i >= 0 for i in value)


LAYERS = Rule("a list of layers, numbered from 0", _is_layers)
MATRICES = Rule(
    "a list of names without duplicates", lambda v: is_names(v) and len(set(v)) == len(v)
)
TYPES = ("float16", "half", "bfloat16", "float32", "float", "float64", "double")


def _flags(*names: str) -> dict[str, Rule]:
    return dict.fromkeys(names, FLAG)


# `scaling`, `non_linearity` and the names in `attn_matrices` are checked where they select a module
BOTTLENECK: Mapping[str, Rule] = {
    **_flags("mh_adapter", "output_adapter", "cross_adapter", "is_parallel", "use_gating"),
    **_flags("original_ln_before", "original_ln_after", "ln_before", "ln_after"),
    **_flags("residual_before_ln", "adapter_residual_before_ln"),
    **_flags("phm_layer", "factorized_phm_W", "shared_W_phm", "shared_phm_rule"),
    **_flags("factorized_phm_rule", "learn_phm", "phm_bias"),
    "reduction_factor": number("a number of 0.001 or more", lambda value: value >= 0.001),
    "init_weights": one_of("bert", "mam_adapter", "houlsby"),
    "init_weights_seed": SEED,
    "inv_adapter_reduction_factor": BASE.or_null(),
    "leave_out": LAYERS,
    "dropout": PROBABILITY,
    "stochastic_depth": PROBABILITY,
    "phm_dim": whole(1, 1_000),
    "phm_rank": whole(1, 1_000),
    "phm_c_init": one_of("normal", "uniform"),
    "phm_init_range": DEVIATION,
    "hypercomplex_nonlinearity": TEXT,
}
PREFIX: Mapping[str, Rule] = {
    **_flags("encoder_prefix", "cross_prefix", "flat", "use_gating", "shared_gating"),
    "leave_out": LAYERS,
    "prefix_length": SIZE,
    "bottleneck_size": SIZE,
    "dropout": PROBABILITY,
    "init_weights_seed": SEED,
}
LORA: Mapping[str, Rule] = {
    **_flags("selfattn_lora", "intermediate_lora", "output_lora", "use_gating", "use_dora"),
    "leave_out": LAYERS,
    "r": SIZE,
    "alpha": BASE,
    "dropout": PROBABILITY,
    "attn_matrices": MATRICES,
    "init_weights": one_of("lora", "bert", "ia3"),
    "init_weights_seed": SEED,
    "dtype": one_of(*TYPES).or_null(),
}
PROMPT: Mapping[str, Rule] = {
    "prompt_length": SIZE,
    "prompt_init": one_of("random_uniform", "from_string"),
    "prompt_init_text": TEXT.or_null(),
    "random_uniform_scale": DEVIATION,
    "init_weights_seed": SEED,
}
