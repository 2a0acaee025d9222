"""The cases in tests/golden: the official code's results, recorded in float64."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from unipeft_run.interop.official import from_official

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.stem for path in (GOLDEN / "cases").glob("*.json"))
CONFIGS = {"bart": "BartConfig", "mbart": "MBartConfig", "roberta": "RobertaConfig"}


def load_case(case: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], torch.nn.Module]:
    """Load the description and tensors of a case, and our model with its options and weights."""
    meta = json.loads((GOLDEN / "cases" / f"{case}.json").read_text())
    family = case.split("__")[0]
    tensors = load_file(GOLDEN / "cases" / f"{case}.safetensors")
    state = load_file(GOLDEN / f"backbone_{family}.safetensors")
    state |= {k.removeprefix("state/"): v for k, v in tensors.items() if k.startswith("state/")}
    settings = {k: v for k, v in meta["model_config"].items() if v is not None}
    settings |= {"num_labels": 3} if family == "roberta" else {}
    quiet = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)
    quiet |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = getattr(transformers, CONFIGS[family])(**{**settings, **quiet})
    config._attn_implementation = "sdpa"
    return meta, tensors, from_official(meta["options"], config, state)


def case_inputs(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the keyword arguments of the recorded forward pass."""
    return {k.removeprefix("input/"): v for k, v in tensors.items() if k.startswith("input/")}


def is_close(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether two tensors are equal up to float64 rounding."""
    return bool((actual - expected).abs().max() <= 1e-10 * expected.abs().max() + 1e-12)
