"""The options of the `adapters` library, version 1.3: which of them we can take.

A configuration is a mapping, as `AdapterConfig.to_dict` returns it. Its `architecture` is null for
a bottleneck, `prefix_tuning`, `lora` (also for (IA)3), `prompt_tuning`, or `union` of several.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unipeft_run.backbones.fields import Rule
from unipeft_run.config.messages import shorten, unknown_choice, unknown_key
from unipeft_run.interop import adapters_rules
from unipeft_run.interop.rules import check_values

Options = Mapping[str, Any]

BOTTLENECK, PREFIX, LORA, PROMPT = "bottleneck", "prefix_tuning", "lora", "prompt_tuning"
# architecture -> option -> its default
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    BOTTLENECK: {
        "mh_adapter": False,
        "output_adapter": True,
        "reduction_factor": 16,
        "non_linearity": "relu",
        "original_ln_before": False,
        "original_ln_after": True,
        "ln_before": False,
        "ln_after": False,
        "init_weights": "bert",
        "init_weights_seed": None,
        "is_parallel": False,
        "scaling": 1.0,
        "use_gating": False,
        "residual_before_ln": True,
        "adapter_residual_before_ln": False,
        "inv_adapter": None,
        "inv_adapter_reduction_factor": None,
        "cross_adapter": False,
        "leave_out": [],
        "dropout": 0.0,
        "phm_layer": False,
        "phm_dim": 4,
        "factorized_phm_W": True,
        "shared_W_phm": False,
        "shared_phm_rule": True,
        "factorized_phm_rule": False,
        "phm_c_init": "normal",
        "phm_init_range": 0.0001,
        "learn_phm": True,
        "hypercomplex_nonlinearity": "glorot-uniform",
        "phm_rank": 1,
        "phm_bias": True,
        "stochastic_depth": 0.0,
    },
    PREFIX: {
        "encoder_prefix": True,
        "cross_prefix": True,
        "leave_out": [],
        "flat": False,
        "prefix_length": 30,
        "bottleneck_size": 512,
        "non_linearity": "tanh",
        "dropout": 0.0,
        "use_gating": False,
        "shared_gating": True,
        "init_weights_seed": None,
    },
    LORA: {
        "selfattn_lora": True,
        "intermediate_lora": False,
        "output_lora": False,
        "leave_out": [],
        "r": 8,
        "alpha": 8,
        "dropout": 0.0,
        "attn_matrices": ["q", "v"],
        "composition_mode": "add",
        "init_weights": "lora",
        "init_weights_seed": None,
        "use_gating": False,
        "use_dora": False,
        "vera_d": None,
        "vera_b": None,
        "dtype": None,
    },
    PROMPT: {
        "prompt_length": 10,
        "prompt_init": "random_uniform",
        "prompt_init_text": None,
        "random_uniform_scale": 0.5,
        "combine": "prefix",
        "init_weights_seed": None,
    },
}
# the only values that we can take of an option
ALLOWED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    BOTTLENECK: {
        "original_ln_after": (True,),
        "ln_before": (False,),
        "ln_after": (False,),
        "residual_before_ln": (True,),
        "adapter_residual_before_ln": (False,),
        "inv_adapter": (None,),
        "factorized_phm_W": (True,),
        "shared_W_phm": (False,),
        "shared_phm_rule": (True,),
        "factorized_phm_rule": (False,),
        "stochastic_depth": (0.0,),
    },
    PREFIX: {"non_linearity": ("tanh",), "shared_gating": (True,)},
    LORA: {
        "composition_mode": ("add", "scale"),
        "use_dora": (False,),
        "vera_d": (None,),
        "vera_b": (None,),
    },
    PROMPT: {"combine": ("prefix",)},
}
RULES: Mapping[str, Mapping[str, Rule]] = {
    BOTTLENECK: adapters_rules.BOTTLENECK,
    PREFIX: adapters_rules.PREFIX,
    LORA: adapters_rules.LORA,
    PROMPT: adapters_rules.PROMPT,
}


def read_parts(options: Options) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield architecture and complete options of each part of a configuration.

    Raises ValueError for an option or a value that we cannot take.
    """
    architecture = options.get("architecture")
    if architecture is None:
        architecture = BOTTLENECK
    if architecture == "union":
        for part in _parts_of(options):
            yield from read_parts(part)
        return
    if not isinstance(architecture, str) or architecture not in DEFAULTS:
        raise ValueError(unknown_choice("architecture", architecture, [*DEFAULTS, "union"]))
    yield architecture, _complete(architecture, options)


def _parts_of(union: Options) -> Sequence[Options]:
    for key in union:
        if key not in ("architecture", "configs"):
            raise ValueError(f"union: {unknown_key(str(key), ['configs'])}")
    parts = union.get("configs", ())
    if not isinstance(parts, list | tuple) or not all(isinstance(p, Mapping) for p in parts):
        raise ValueError(f"union: configs={shorten(parts)}: must be a list of configurations")
    return parts


def _complete(architecture: str, options: Options) -> dict[str, Any]:
    defaults = DEFAULTS[architecture]
    given = {key: value for key, value in options.items() if key != "architecture"}
    for key in given:
        if key not in defaults:
            raise ValueError(f"{architecture}: {unknown_key(str(key), defaults)}")
    complete = {**defaults, **given}
    for key, allowed in ALLOWED[architecture].items():
        if complete[key] not in allowed:
            choices = " or ".join(map(str, allowed))
            value = shorten(complete[key])
            raise ValueError(f"{architecture}: {key}={value} is not supported: {choices}")
    check_values(complete, RULES[architecture], f"{architecture}: ")
    return complete
