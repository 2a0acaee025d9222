"""Values of a wrong type or range in the options of `adapters` and LLM-Adapters are named."""

from __future__ import annotations

import math
from typing import Any

import golden_peers
import pytest

from unipeft_run.interop import llm_adapters
from unipeft_run.interop.adapters import from_adapters
from unipeft_run.interop.adapters_options import ALLOWED, DEFAULTS, RULES, read_parts
from unipeft_run.interop.llm_adapters import from_llm_adapters

UNFIT: list[Any] = [math.nan, math.inf, -1, "x", {"default": 4}, [[]], [-1], [None], object()]
CHECKED_LATER = {("bottleneck", "scaling"), ("bottleneck", "non_linearity")}
TEXTS = {("bottleneck", "hypercomplex_nonlinearity"), ("prompt_tuning", "prompt_init_text")}
LLM_OPTIONS = [(tuner, key) for tuner, rules in llm_adapters.RULES.items() for key in rules]


def read(architecture: str, **options: Any) -> Any:
    return list(read_parts({"architecture": architecture, **options}))


def run_llm(tuner: str, **options: Any) -> None:
    """Read a configuration without tensors: the values are checked before any of them."""
    needed = {"lora_alpha": 8} if tuner == "LORA" else {}
    config, _, _ = golden_peers.backbone("llama")
    from_llm_adapters({"peft_type": tuner, **needed, **options}, config, {})


@pytest.mark.parametrize("architecture", DEFAULTS)
def test_defaults_are_taken_and_every_option_has_a_rule(architecture: str) -> None:
    assert read(architecture) == [(architecture, DEFAULTS[architecture])]
    ruled = RULES[architecture].keys() | ALLOWED[architecture].keys()
    later = {key for kind, key in CHECKED_LATER if kind == architecture}
    assert ruled | later == DEFAULTS[architecture].keys()


@pytest.mark.parametrize(
    ("architecture", "key"),
    [
        (architecture, key)
        for architecture, options in DEFAULTS.items()
        for key in options
        if (architecture, key) not in CHECKED_LATER
    ],
)
def test_a_value_of_a_wrong_type_is_named(architecture: str, key: str) -> None:
    is_seed = key.endswith("_seed")
    is_text = (architecture, key) in TEXTS
    for value in UNFIT:
        if (is_seed and value == -1) or (is_text and value == "x"):
            continue
        with pytest.raises(ValueError, match=f"^{architecture}: {key}=.*: "):
            read(architecture, **{key: value})


@pytest.mark.parametrize(
    ("architecture", "options", "sentence"),
    [
        ("bottleneck", {"mh_adapter": 1}, "mh_adapter=1: must be true or false"),
        ("bottleneck", {"ln_before": 0}, "ln_before=0: must be true or false"),
        ("bottleneck", {"reduction_factor": True}, "reduction_factor=True: must be a number of"),
        ("bottleneck", {"reduction_factor": 1e-9}, "reduction_factor=1e-09: must be a number of"),
        ("bottleneck", {"leave_out": 1}, "leave_out=1: must be a list of layers"),
        ("bottleneck", {"leave_out": [True]}, r"leave_out=\[True\]: must be a list of layers"),
        ("bottleneck", {"phm_dim": 0}, "phm_dim=0: must be a whole number from 1 to 1,000"),
        ("bottleneck", {"dropout": 1}, "dropout=1: must be a number from 0 to below 1"),
        ("prefix_tuning", {"prefix_length": 0}, "prefix_length=0: must be a whole number from 1"),
        ("prefix_tuning", {"prefix_length": 10**9}, "prefix_length=1000000000: must be a whole"),
        ("lora", {"r": 0}, "r=0: must be a whole number from 1"),
        ("lora", {"r": 4.0}, "r=4.0: must be a whole number from 1"),
        ("lora", {"alpha": 0}, "alpha=0: must be a number above 0"),
        ("lora", {"attn_matrices": "qv"}, "attn_matrices=qv: must be a list of names"),
        ("lora", {"attn_matrices": ["q", "q"]}, "attn_matrices=.*: must be a list of names"),
        ("lora", {"init_weights": "vera"}, "init_weights=vera: must be one of lora, bert, ia3"),
        ("prompt_tuning", {"prompt_length": None}, "prompt_length=None: must be a whole number"),
    ],
)
def test_a_value_that_no_library_takes_is_named(
    architecture: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=f"^{architecture}: {sentence}"):
        read(architecture, **options)


@pytest.mark.parametrize("value", [[], {}, 0, False, "", "x", ["lora"], {"lora": 1}])
def test_an_architecture_is_a_word_or_null(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^architecture=.* is unknown"):
        list(read_parts({"architecture": value}))


@pytest.mark.parametrize("value", [3, None, "lora", {"a": 1}, ["lora"], [None]])
def test_a_union_is_a_list_of_configurations(value: Any) -> None:
    with pytest.raises(ValueError, match=r"union: configs=.*: must be a list of configurations"):
        read("union", configs=value)


def test_unknown_keys_of_any_type_are_named() -> None:
    with pytest.raises(ValueError, match="lora: there is no key 3"):
        list(read_parts({"architecture": "lora", 3: 4}))  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="union: there is no key leave_out"):
        read("union", configs=[], leave_out=[1])


@pytest.mark.parametrize("scaling", [math.nan, math.inf, True, 2, None, [], "x"])
@pytest.mark.parametrize("use_gating", [True, False])
def test_a_scale_of_adapters_is_a_finite_float(scaling: Any, use_gating: bool) -> None:
    config, state, _ = golden_peers.backbone("llama")
    options = {"scaling": scaling, "use_gating": use_gating}
    with pytest.raises(ValueError, match=r"^scaling=.* is not supported: a float, or learned"):
        from_adapters(options, config, state)


@pytest.mark.parametrize(("family", "layers"), [("llama", 1), ("t5", 3), ("clip", 3)])
def test_layers_that_are_left_out_are_in_the_model(family: str, layers: int) -> None:
    config, state, _ = golden_peers.backbone(family)
    with pytest.raises(ValueError, match=rf"leave_out=\[99\]: the model has layers 0 to {layers}"):
        from_adapters({"leave_out": [99]}, config, state)


@pytest.mark.parametrize(("tuner", "key"), LLM_OPTIONS)
def test_a_value_of_a_wrong_type_of_llm_adapters_is_named(tuner: str, key: str) -> None:
    for value in UNFIT:
        if key == "target_modules" and value == "x":
            continue
        with pytest.raises(ValueError, match=rf"^{key}=.*: must be "):
            run_llm(tuner, **{key: value})


@pytest.mark.parametrize(
    ("tuner", "options", "sentence"),
    [
        ("LORA", {"lora_alpha": None}, "lora_alpha=None: must be a number above 0"),
        ("LORA", {"lora_alpha": 0}, "lora_alpha=0: must be a number above 0"),
        ("LORA", {"r": 0}, "r=0: must be a whole number from 1"),
        ("LORA", {"fan_in_fan_out": 0}, "fan_in_fan_out=0: must be true or false"),
        ("LORA", {"target_modules": 3}, "target_modules=3: must be a list of names, or a reg"),
        ("LORA", {"target_modules": "("}, r"target_modules \(: missing \)"),
        ("LORA", {"target_modules": "(a*)*b"}, r"target_modules \(a\*\)\*b is too complex"),
        ("BOTTLENECK", {"use_adapterp": 1}, "use_adapterp=1: must be true or false"),
        ("BOTTLENECK", {"init_weights": "x"}, "init_weights=x: must be one of bert, mam_adapter"),
        ("BOTTLENECK", {"scaling": math.nan}, "scaling=nan is not supported: a float, or learned"),
        ("BOTTLENECK", {3: 4}, "there is no key 3"),
    ],
)
def test_a_value_that_llm_adapters_cannot_take_is_named(
    tuner: str, options: dict[Any, Any], sentence: str
) -> None:
    config, state, _ = golden_peers.backbone("llama")
    needed = {"lora_alpha": 8} if tuner == "LORA" else {}
    with pytest.raises(ValueError, match=f"^{sentence}"):
        from_llm_adapters({"peft_type": tuner, **needed, **options}, config, state)
