"""Unrecorded combinations of the official options, compared with a rewrite of the equations.

The rewrite reproduces every recorded case (first test). It therefore serves as the reference for
options that were not recorded, and for methods of the paper with which the official code crashes.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from golden_cases import CASES, CONFIGS, GOLDEN, case_inputs, is_close
from official_forward import Official
from official_states import inserted
from safetensors.torch import load_file

from unipeft_run.deltas.attach import find_deltas
from unipeft_run.interop.official import from_official
from unipeft_run.interop.official_names import named_parameters
from unipeft_run.interop.options import DEFAULTS

SIZES = {"attn_bn": 5, "ffn_bn": 6, "mid_dim": 24, "lora_alpha": 12.0}


def options(**given: Any) -> dict[str, Any]:
    return {**DEFAULTS, **SIZES, "ffn_adapter_layernorm_option": "none", **given}


def prefix(option: str, composition: str = "add", mode: str = "prefix") -> dict[str, Any]:
    return {"attn_mode": mode, "attn_option": option, "attn_composition": composition}


def adapter(option: str) -> dict[str, Any]:
    return {"attn_mode": "adapter", "attn_option": option}


def ffn(option: str, scalar: str = "1", norm: str = "none") -> dict[str, Any]:
    return {
        "ffn_mode": "adapter",
        "ffn_option": option,
        "ffn_adapter_scalar": scalar,
        "ffn_adapter_layernorm_option": norm,
        "ffn_adapter_init_option": "lora",
    }


LORA, LORA_FFN = {"attn_mode": "lora"}, {"ffn_mode": "lora"}
PROMPT, BITFIT = {"attn_mode": "prompt_tuning"}, {"attn_mode": "bitfit"}
EVERYWHERE: dict[str, dict[str, Any]] = {
    "prefix": prefix("concat"),
    "prefix nomlp": prefix("concat", mode="prefix_nomlp"),
    "additive": prefix("cross_attn_noln"),
    "additive + LN": prefix("cross_attn"),
    "additive nomlp + LN": prefix("cross_attn", mode="prefix_nomlp"),
    "gate": prefix("cross_attn_noln", "gate_add"),
    "gate + LN": prefix("cross_attn", "gate_add"),
    "gated multi-head": prefix("cross_attn_relu", "gate_add"),
    "multi-head nomlp": prefix("cross_attn_relu", mode="prefix_nomlp"),
    "multi-head + PA": {**prefix("cross_attn_relu"), **ffn("parallel")},
    "mam": {**prefix("concat"), **ffn("parallel", "4")},
    "prefix + LoRA": {**prefix("concat"), **LORA_FFN},
    "houlsby": {**adapter("sequential"), **ffn("sequential")},
    "houlsby LN in": {**adapter("sequential"), **ffn("sequential", norm="in")},
    "PA + PA": {**adapter("parallel"), **ffn("parallel")},
    "PA + LoRA": {**adapter("parallel"), **LORA_FFN},
    "PA LN in": ffn("parallel", "2", "in"),
    "PA LN out": ffn("parallel", "2", "out"),
    "PA LN out learned": ffn("parallel", "learnable_scalar", "out"),
    "SA LN out": ffn("sequential", "4", "out"),
    "SA learned": ffn("sequential", "learnable_scalar"),
    "LoRA + LoRA": {**LORA, **LORA_FFN},
    "LoRA + SA": {**LORA, **ffn("sequential", "4")},
    "pfeiffer": ffn("pfeiffer"),
    "pfeiffer LN in": ffn("pfeiffer", "2", "in"),
    "pfeiffer LN out learned": ffn("pfeiffer", "learnable_scalar", "out"),
    "prefix + pfeiffer": {**prefix("concat"), **ffn("pfeiffer")},
    "prompt": PROMPT,
    "prompt + PA": {**PROMPT, **ffn("parallel", "4")},
    "bitfit + PA": {**BITFIT, **ffn("parallel", norm="in")},
    "bitfit + LoRA": {**BITFIT, **LORA_FFN},
    "norms of attention": {**adapter("parallel"), "unfreeze_params": "LN"},
    "head and norms": {**ffn("parallel"), "unfreeze_params": "ef_,classifier,layer_norm,LayerNorm"},
    "frozen but the prefix": {**prefix("concat"), **ffn("parallel"), "unfreeze_params": "none"},
}
# the second attention implementation differs only for methods that modify the heads
CORES = {
    name: ["sdpa", *(["eager"] if str(o.get("attn_option")).startswith("c") else [])]
    for name, o in EVERYWHERE.items()
}
CELLS = [
    (family, name, core)
    for family in CONFIGS
    for name, cores in CORES.items()
    for core in cores
    if (family, name) != ("roberta", "norms of attention")  # no such name there: nothing trains
]


def backbone_state(family: str) -> dict[str, torch.Tensor]:
    state = load_file(GOLDEN / f"backbone_{family}.safetensors")
    return {k.removeprefix("pretrained_model."): v for k, v in state.items()}


def batch(family: str) -> dict[str, torch.Tensor]:
    return case_inputs(load_file(GOLDEN / "cases" / f"{family}__prefix.safetensors"))


def tiny_config(family: str) -> Any:
    meta = json.loads((GOLDEN / "cases" / f"{family}__prefix.json").read_text())
    settings = {k: v for k, v in meta["model_config"].items() if v is not None}
    settings |= {"num_labels": 3} if family == "roberta" else {}
    quiet = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)
    quiet |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return getattr(transformers, CONFIGS[family])(**{**settings, **quiet})


def trains(name: str, o: dict[str, Any]) -> bool:
    """Return whether a parameter trains, by the official naming rule (section 2)."""
    if name.startswith("prompt_model."):
        return True
    if o["attn_mode"] == "bitfit":
        return "bias" in name
    rule = {"LN": ["attn_layer_norm"], "none": []}
    return any(w in name for w in rule.get(o["unfreeze_params"], o["unfreeze_params"].split(",")))


@pytest.mark.parametrize("case", CASES)
def test_the_rewrite_reproduces_the_official_code(case: str) -> None:
    meta = json.loads(Path(GOLDEN / "cases" / f"{case}.json").read_text())
    tensors = load_file(GOLDEN / "cases" / f"{case}.safetensors")
    family = case.split("__")[0]
    own = {k.removeprefix("state/"): v for k, v in tensors.items() if k.startswith("state/")}
    state = backbone_state(family)
    state |= {k.removeprefix("pretrained_model."): v for k, v in own.items()}
    official = Official(family, meta["options"], state)
    assert is_close(official.logits(case_inputs(tensors)), tensors["output/logits"])
    assert is_close(official.loss(case_inputs(tensors)), tensors["output/loss"].squeeze())


@pytest.mark.parametrize(("family", "name", "attention"), CELLS)
def test_logits_loss_gradients_and_trainable_parameters(
    family: str, name: str, attention: str
) -> None:
    o, given = options(**EVERYWHERE[name]), batch(family)
    state = {**backbone_state(family), **inserted(family, o)}
    for key, tensor in state.items():
        tensor.requires_grad_(tensor.is_floating_point() and trains(key, o))
    official = Official(family, o, state)
    loss = official.loss(given)
    loss.backward()

    config = tiny_config(family)
    config._attn_implementation = attention
    model = from_official(o, config, {k: v.detach() for k, v in state.items()})
    output = model(**given)
    output.loss.backward()
    assert is_close(output.logits, official.logits(given))
    assert is_close(output.loss, loss)
    ours: dict[str, list[torch.Tensor]] = {}
    for path, delta in find_deltas(model):
        for parameter, key, rows in named_parameters(path, delta):
            assert parameter.requires_grad == state[key].requires_grad, key
            ours.setdefault(key, [])
            if parameter.requires_grad:
                assert parameter.grad is not None
                assert is_close(parameter.grad, state[key].grad[rows]), key
    inner = {id(p) for _, delta in find_deltas(model) for p in delta.parameters()}
    free = {k: p for k, p in model.named_parameters() if id(p) not in inner and p.requires_grad}
    for key, parameter in free.items():
        assert is_close(parameter.grad, state[key].grad), key
    expected = {k for k, v in state.items() if v.grad is not None}
    assert {k for k in (*free, *ours) if state[k].requires_grad} == expected


def test_the_literal_gate_is_the_concatenation() -> None:
    given = batch("bart")
    for family in ("bart", "mbart", "roberta"):
        given, gate = batch(family), options(**prefix("cross_attn_noln", "gate_add"))
        state = {**backbone_state(family), **inserted(family, gate)}
        concatenated = Official(family, options(**prefix("concat")), state).logits(given)
        assert is_close(Official(family, gate, state).logits(given), concatenated)


REFUSED = [
    ({"attn_mode": "lisa"}, "attn_mode=lisa"),
    ({"attn_mode": "prefix", "attn_option": "parallel"}, "attn_option"),
    ({**prefix("concat", "gate_add")}, "gated already"),
    ({**adapter("concat")}, "attn_option"),
    ({**adapter("none")}, "attn_option"),
    ({**adapter("parallel"), "attn_composition": "gate_add"}, "no prefix to gate"),
    ({**LORA, "attn_composition": "gate_add"}, "no prefix to gate"),
    ({**BITFIT, "attn_composition": "gate_add"}, "no prefix to gate"),
    ({**PROMPT, "attn_composition": "gate_add"}, "no prefix to gate"),
    ({**ffn("none")}, "ffn_option"),
    ({**ffn("parallel", "much")}, "ffn_adapter_scalar"),
    ({**ffn("parallel", norm="before")}, "ffn_adapter_layernorm_option"),
    ({**ffn("parallel"), "ffn_adapter_init_option": "lisa"}, "ffn_adapter_init_option"),
    ({**LORA, "lora_init": "zero"}, "lora_init"),
    ({"ffn_mode": "bottleneck"}, "ffn_mode"),
]


@pytest.mark.parametrize(("given", "sentence"), REFUSED)
def test_an_unsupported_option_is_named(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        from_official(options(**given), tiny_config("bart"), backbone_state("bart"))


def test_an_unsupported_tensor_is_named() -> None:
    o = options(**ffn("parallel"))
    state = {**backbone_state("bart"), **inserted("bart", o)}
    name = "model.encoder.layers.0.ef_ffn_adapter.down_proj.weight"
    for change, sentence in (
        ({name: None}, f"the checkpoint has no tensor {name}"),
        ({name: torch.zeros(1, 32)}, rf"{name} is \[1, 32\]"),
        ({"model.shared.weight": None}, "the checkpoint has no tensor model.shared.weight"),
        ({"model.shared.weight": torch.zeros(9, 32)}, r"model.shared.weight is \[9, 32\]"),
        ({"model.ef_more.weight": torch.zeros(1)}, "unexpected official tensor"),
        ({"prompt_model.wte.weight": torch.zeros(5, 32)}, "unexpected official tensor"),
    ):
        changed = {k: v for k, v in {**state, **change}.items() if v is not None}
        with pytest.raises(ValueError, match=sentence):
            from_official(o, tiny_config("bart"), changed)


def test_a_missing_option_gets_the_official_default() -> None:
    o = {"attn_mode": "prefix", **SIZES}
    state = {**backbone_state("bart"), **inserted("bart", options(**prefix("concat")))}
    config = tiny_config("bart")
    model = from_official(o, config, state)
    assert is_close(
        model(**batch("bart")).logits, Official("bart", options(**o), state).logits(batch("bart"))
    )
    assert "unipeft" not in str(config._attn_implementation), (
        "the caller's configuration is not modified"
    )
