"""`generate` gives the recorded token ids of the official code and of transformers 5."""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_cases import case_inputs, load_case
from safetensors import safe_open
from safetensors.torch import load_file
from sampling import sampled
from tiny_generation import without_padding
from transformers import BartConfig, BartForConditionalGeneration

from unipeft_run import generate

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = sorted(path.stem for path in (GOLDEN / "beam").glob("model_*.json"))
RECORDED = {"2021": "tokens_2021", "transformers": "tokens_transformers_5"}
TIED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")


def has_generations(path: Path) -> bool:
    with safe_open(path, "pt") as tensors:
        return "output/generate_beam3" in tensors.keys()  # noqa: SIM118


GENERATED = [p.stem for p in sorted((GOLDEN / "cases").glob("*.safetensors")) if has_generations(p)]


@cache
def load_beam_model(name: str) -> tuple[list[dict[str, Any]], Any]:
    """Load recorded cases and their model."""
    recorded = json.loads((GOLDEN / "beam" / f"{name}.json").read_text())
    quiet = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)
    model = BartForConditionalGeneration(BartConfig(**recorded["config"], **quiet)).eval()
    state = load_file(GOLDEN / "beam" / f"{name}.safetensors")
    model.load_state_dict(state | dict.fromkeys(TIED, state["model.shared.weight"]))
    return recorded["cases"], model


def pad_free(rows: list[list[int]]) -> list[list[int]]:
    width = max(map(len, rows))
    return without_padding(torch.tensor([row + [1] * (width - len(row)) for row in rows]))


@pytest.mark.parametrize(("name", "rules"), sampled(product(MODELS, RECORDED), 3))
def test_recorded_beam_searches(name: str, rules: Any) -> None:
    cases, model = load_beam_model(name)
    for case in cases:
        generated = generate(
            model,
            input_ids=torch.tensor(case["input_ids"]),
            attention_mask=torch.tensor(case["attention_mask"]),
            decoding=case["decoding"],
            rules=rules,
        )
        assert pad_free(generated.tolist()) == pad_free(case[RECORDED[rules]]), case["decoding"]


def test_ten_cases_of_the_official_code_have_generations() -> None:
    assert len(GENERATED) == 10


def test_the_rules_differ_in_the_recorded_number_of_cases() -> None:
    cases = [case for name in MODELS for case in load_beam_model(name)[0]]
    differ = [pad_free(c["tokens_2021"]) != pad_free(c["tokens_transformers_5"]) for c in cases]
    assert (len(differ), sum(differ)) == (162, 15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", GENERATED)
def test_recorded_generations_of_every_method(case: str, dtype: torch.dtype) -> None:
    meta, tensors, model = load_case(case)
    inputs = case_inputs(tensors)
    decoding = {"max_length": 12, "min_length": 3, "no_repeat_ngram_size": 3}
    decoding["decoder_start_token_id"] = meta["model_config"]["decoder_start_token_id"]
    for name, beams in (("greedy", 1), ("beam3", 3)):
        generated = generate(
            model.to(dtype),
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            decoding={**decoding, "num_beams": beams},
        )
        assert generated.tolist() == tensors[f"output/generate_{name}"].tolist()
