"""The official code's logits, loss, gradients and generations, recorded in float64."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from unipeft_run.deltas.attach import deltas
from unipeft_run.interop.official import from_official
from unipeft_run.interop.official_names import named_parameters

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.stem for path in (GOLDEN / "cases").glob("*.json"))
CONFIGS = {"bart": "BartConfig", "mbart": "MBartConfig", "roberta": "RobertaConfig"}


def load(case: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], torch.nn.Module]:
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


def inputs(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix("input/"): v for k, v in tensors.items() if k.startswith("input/")}


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-10 * theirs.abs().max() + 1e-12)


@pytest.mark.parametrize("case", CASES)
def test_logits_and_loss(case: str) -> None:
    _, tensors, model = load(case)
    output = model(**inputs(tensors))
    assert close(output.logits, tensors["output/logits"])
    assert close(output.loss, tensors["output/loss"].squeeze())


@pytest.mark.parametrize("case", CASES)
def test_every_gradient(case: str) -> None:
    meta, tensors, model = load(case)
    model(**inputs(tensors)).loss.backward()
    theirs = {
        k.removeprefix("grad/").removeprefix("pretrained_model."): v
        for k, v in tensors.items()
        if k.startswith("grad/")
    }
    total = sum(p.numel() for p in model.parameters() if p.grad is not None)
    used = set()
    for path, delta in deltas(model):
        for parameter, name, rows in named_parameters(path, delta, theirs):
            assert parameter.grad is not None
            assert close(parameter.grad, theirs[name][rows]), name
            used.add(name)
    named = dict(model.named_parameters())
    for name in [name for name in theirs if name in named]:
        ours, gradient = named[name].grad, theirs.pop(name)
        assert ours is not None
        assert close(ours, gradient), name
    assert not [name for name in theirs.keys() - used if not name.startswith("prompt_model.")]
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == meta["counts"]["trainable_receiving_gradient"] == total


GENERATED = [
    c for c in CASES if "generation" in json.loads((GOLDEN / f"cases/{c}.json").read_text())
]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("case", GENERATED)
def test_generated_ids(case: str, use_cache: bool) -> None:
    meta, tensors, model = load(case)
    given = inputs(tensors)
    for name, beams in (("greedy", 1), ("beam3", 3)):
        if (theirs := tensors.get(f"output/generate_{name}")) is not None:
            ours = model.generate(
                given["input_ids"],
                attention_mask=given["attention_mask"],
                num_beams=beams,
                min_length=3,
                max_length=12,
                no_repeat_ngram_size=3,
                length_penalty=1.0,
                forced_eos_token_id=2,
                early_stopping=False,
                decoder_start_token_id=meta["model_config"]["decoder_start_token_id"],
                use_cache=use_cache,
            )
            assert ours.tolist() == theirs.tolist()
