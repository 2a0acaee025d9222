"""`generate` gives the greedy ids recorded from the `adapters` library, with a cache.

The ids are those of a search without a cache, of prompts with padding on the left.
"""

from __future__ import annotations

from typing import Any

import golden_peers
import pytest
import transformers

from unipeft_run import generate
from unipeft_run.backbones.families import family_of
from unipeft_run.deltas.attention import IMPLEMENTATIONS
from unipeft_run.interop.adapters import from_adapters
from unipeft_run.interop.tensors import RemainingTensors, load_backbone_tensors

FAMILIES = ("llama", "gpt2", "t5", "t5v11")
CASES = [case for case in golden_peers.case_names("cases") if case.partition("__")[0] in FAMILIES]
DECODING = {"num_beams": 1, "max_new_tokens": 8, "forced_eos": False}


def check(model: Any, tensors: dict[str, Any], core: str) -> None:
    """Compare the generated ids with the recorded ones."""
    own = model.config._attn_implementation in IMPLEMENTATIONS.values()
    model.set_attn_implementation(IMPLEMENTATIONS[core] if own else core)
    golden_peers.widen_rotary(model)
    inputs = golden_peers.inputs_of(tensors, "gen_input")
    with golden_peers.float64_islands():
        ids = generate(model, **inputs, decoding=DECODING)
    assert ids.tolist() == tensors["output/generate_greedy"].tolist()


@pytest.mark.parametrize("core", IMPLEMENTATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_backbones(family: str, core: str) -> None:
    config, state, tensors = golden_peers.backbone(family)
    model = getattr(transformers, family_of(config).model)(config).double().eval()
    load_backbone_tensors(model, RemainingTensors(state))
    check(model, tensors, core)


@pytest.mark.parametrize("core", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", CASES)
def test_every_recorded_case(case: str, core: str) -> None:
    meta, tensors = golden_peers.load(f"cases/{case}")
    config, state, others = golden_peers.backbone(meta["family"])
    state |= golden_peers.inputs_of(tensors, "state")
    model = from_adapters(meta["options"], config, state)
    check(model, {**others, **tensors}, core)
