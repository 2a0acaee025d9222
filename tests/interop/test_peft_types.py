"""Values and tensors of a wrong type in a PEFT checkpoint are refused by name: no tracebacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import golden_peers
import pytest
import torch
from transformers import BertModel

from unipeft_run.deltas.attach import find_deltas
from unipeft_run.interop.peft import from_peft

pytest.importorskip("peft")

State = dict[str, torch.Tensor]
CONVERSIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "int64": lambda tensor: tensor.long(),
    "bool": lambda tensor: tensor > 0,
    "complex64": lambda tensor: tensor.to(torch.complex64),
}


def load(case: str) -> tuple[dict[str, Any], Any, State]:
    """Return the configuration of a recorded case, its model's, and all tensors."""
    meta, tensors = golden_peers.load(f"peft_cases/{case}")
    config, state, _ = golden_peers.backbone(meta["family"])
    config._attn_implementation = "eager"
    return meta["config"], config, {**state, **golden_peers.inputs_of(tensors, "state")}


@pytest.mark.parametrize(
    ("case", "ending", "kind"),
    [
        ("t5__lora_qv", "q.lora_A.weight", "int64"),
        ("t5__lora_qv", "q.lora_A.weight", "complex64"),
        ("t5__lora_qv", "q.lora_B.weight", "bool"),
        ("llama__dora_qv", "lora_B.weight", "int64"),
        ("llama__dora_qv", "model.norm.weight", "bool"),
        ("llama__dora_qv", "model.norm.weight", "complex64"),
        ("bert__hira_qv", "hira_A", "complex64"),
        ("llama__ia3", "ia3_l", "bool"),
        ("llama__loha_qv", "hada_w1_a", "int64"),
        ("bert__vera_qv", "vera_lambda_b", "int64"),
        ("bert__ln_tuning", "LayerNorm.weight", "bool"),
        ("bert__ln_tuning", "bert.embeddings.word_embeddings.weight", "int64"),
        ("bert__prefix_tuning", "prompt_embeddings", "int64"),
        ("bert__lora_all_linear", "classifier.bias", "int64"),
    ],
)
def test_tensors_are_of_a_floating_point_type(case: str, ending: str, kind: str) -> None:
    options, config, state = load(case)
    found = sorted(name for name in state if name.endswith(ending))
    name = next((n for n in found if n.startswith("base_model.")), found[0])
    with pytest.raises(ValueError, match=rf"the tensor {re.escape(name)} is {kind}, not of a fl"):
        from_peft(options, config, {**state, name: CONVERSIONS[kind](state[name])})


def test_old_integer_buffers_are_ignored() -> None:
    options, config, state = load("bert__hira_qv")
    positions = {"bert.embeddings.position_ids": torch.arange(40)[None]}
    assert from_peft(options, config, {**state, **positions})


@pytest.mark.parametrize("change", [torch.Tensor.sum, lambda t: t[0], lambda t: t[None]])
@pytest.mark.parametrize("ending", ["lora_A.weight", "lora_B.weight"])
def test_factors_have_two_dimensions(ending: str, change: Any) -> None:
    options, config, state = load("t5__lora_qv")
    name = min(name for name in state if name.endswith(ending))
    with pytest.raises(ValueError, match=rf"{re.escape(name)} has the shape \[.* peft_config des"):
        from_peft(options, config, {**state, name: change(state[name])})


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("t5__lora_qv", {"target_modules": 3}, "target_modules=3: must be a list of names, or a r"),
        ("t5__lora_qv", {"target_modules": [3]}, r"target_modules=\[3\]: must be a list of names"),
        ("t5__lora_qv", {"target_modules": {"q": 1}}, "target_modules={'q': 1}: must be a list"),
        ("t5__lora_qv", {"modules_to_save": 5}, "modules_to_save=5: must be a list of names"),
        ("t5__lora_qv", {"modules_to_save": "lm_head"}, "modules_to_save=lm_head: must be a list"),
        ("t5__lora_qv", {"modules_to_save": ["zz"]}, "modules_to_save: the model has no module zz"),
        ("llama__dora_qv", {"modules_to_save": [None]}, r"modules_to_save=\[None\]: must be a li"),
        (
            "t5__adalora_qv",
            {"rank_pattern": {"q": [True]}},
            "ADALORA: rejected by the PEFT library",
        ),
    ],
)
def test_an_option_of_a_wrong_type_is_named(
    case: str, change: dict[str, Any], message: str
) -> None:
    options, config, state = load(case)
    with pytest.raises(ValueError, match=rf"peft_config\.\S*{message}"):
        from_peft({**options, **change}, config, state)


def test_heads_that_the_library_lists_for_every_model_are_taken() -> None:
    options, config, state = load("bert__lora_all_linear")
    assert from_peft({**options, "modules_to_save": ["classifier", "score"]}, config, state)


def test_plain_lora_in_a_model_without_a_head_keeps_the_library_s_modules() -> None:
    options, config, state = load("bert__lora_all_linear")
    options = {
        **options,
        "task_type": "FEATURE_EXTRACTION",
        "target_modules": ["query", "value"],
        "modules_to_save": None,
    }
    names = {name: re.sub(r"^(base_model\.model\.)?bert\.", r"\1", name) for name in state}
    kept = re.compile(r"bert\.|base_model\..*\.(query|value)\.lora_")
    model = from_peft(options, config, {names[n]: t for n, t in state.items() if kept.match(n)})
    assert isinstance(model, BertModel)
    assert not list(find_deltas(model))
