"""Logits, loss and counts recorded from LLM-Adapters, in float64."""

from typing import Any

import golden_peers
import pytest
from golden_cases import is_close

from unipeft_run.interop.llm_adapters import from_llm_adapters


def load(case: str) -> tuple[dict[str, Any], dict[str, Any], Any, dict[str, Any]]:
    """Return the description, the tensors, and the configuration and state of a case."""
    meta, tensors = golden_peers.load(f"llm_adapters_cases/{case}")
    config, state, others = golden_peers.backbone("llama")
    state |= golden_peers.inputs_of(tensors, "state")
    return meta, {**others, **tensors}, config, state


@pytest.mark.parametrize("case", golden_peers.case_names("llm_adapters_cases"))
def test_logits_loss_and_counts(case: str) -> None:
    meta, tensors, config, state = load(case)
    model = from_llm_adapters(meta["options"], config, state)
    golden_peers.widen_rotary(model)
    with golden_peers.float64_islands():
        output = model(**golden_peers.inputs_of(tensors))
    assert is_close(output.logits, tensors["output/logits"])
    assert float(output.loss.detach()) == pytest.approx(meta["loss"], rel=1e-12)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == meta["counts"]["trainable"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scaling": 4}, "scaling=4 is not supported: a float, or learned"),
        ({"non_linearity": "gelu"}, "non_linearity"),
        ({"bias": "all"}, "bias=all is not supported: must be none"),
        ({"target_modules": ["q_proj"], "use_parallel_adapter": False}, "q_proj cannot be adapted"),
        ({"botleneck_size": 6}, "botleneck_size.*bottleneck_size"),
        ({"peft_type": "PREFIX_TUNING"}, "peft_type"),
        ({"target_modules": ["up_proj"]}, "unexpected tensor"),
        ({"bottleneck_size": 5}, r"is \[6, 32\]; .* make it \[5, 32\]"),
    ],
)
def test_what_it_cannot_take_is_named(options: dict[str, Any], sentence: str) -> None:
    meta, _, config, state = load("llama__scaled_parallel_4_up_down")
    with pytest.raises(ValueError, match=sentence):
        from_llm_adapters({**meta["options"], **options}, config, state)
