"""The official code's logits, loss, gradients and generations, recorded in float64."""

import json

import pytest
from golden_cases import CASES, GOLDEN, case_inputs, is_close, load_case

from unipeft_run.deltas.attach import find_deltas
from unipeft_run.interop.official_names import named_parameters


@pytest.mark.parametrize("case", CASES)
def test_logits_and_loss(case: str) -> None:
    _, tensors, model = load_case(case)
    output = model(**case_inputs(tensors))
    assert is_close(output.logits, tensors["output/logits"])
    assert is_close(output.loss, tensors["output/loss"].squeeze())


@pytest.mark.parametrize("case", CASES)
def test_every_gradient(case: str) -> None:
    meta, tensors, model = load_case(case)
    model(**case_inputs(tensors)).loss.backward()
    theirs = {
        k.removeprefix("grad/").removeprefix("pretrained_model."): v
        for k, v in tensors.items()
        if k.startswith("grad/")
    }
    total = sum(p.numel() for p in model.parameters() if p.grad is not None)
    used = set()
    for path, delta in find_deltas(model):
        for parameter, name, rows in named_parameters(path, delta, theirs):
            assert parameter.grad is not None
            assert is_close(parameter.grad, theirs[name][rows]), name
            used.add(name)
    named = dict(model.named_parameters())
    for name in [name for name in theirs if name in named]:
        ours, gradient = named[name].grad, theirs.pop(name)
        assert ours is not None
        assert is_close(ours, gradient), name
    assert not [name for name in theirs.keys() - used if not name.startswith("prompt_model.")]
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == meta["counts"]["trainable_receiving_gradient"] == total


GENERATED = [
    c for c in CASES if "generation" in json.loads((GOLDEN / f"cases/{c}.json").read_text())
]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("case", GENERATED)
def test_generated_ids(case: str, use_cache: bool) -> None:
    meta, tensors, model = load_case(case)
    inputs = case_inputs(tensors)
    for name, beams in (("greedy", 1), ("beam3", 3)):
        if (theirs := tensors.get(f"output/generate_{name}")) is not None:
            ours = model.generate(
                inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
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
