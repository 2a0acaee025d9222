"""`generate` with decoder-only models and T5, against transformers and the restated rules of 2021.

With deltas, the reference recomputes the whole model at every step, without a cache.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import tuners
from decoder_cases import cut, draw, generate_then, generate_today, prompt_width
from sampling import sampled
from tiny_decoders import DELTAS, EOS, MODELS, PAD, SLOTTED, build, with_deltas

from unipeft_run import generate
from unipeft_run.config.schema import DecodingConfig
from unipeft_run.deltas.attach import attach
from unipeft_run.evaluation.generation import describe, uncached
from unipeft_run.evaluation.generation.beam_search import RULES
from unipeft_run.tuners.adapter import attach_tuner

FAST, ALL = 1, 20  # seeds
SEEDS = [pytest.param(seed, marks=() if seed < FAST else pytest.mark.slow) for seed in range(ALL)]
NOT_FOR_T5 = ("prefix_shifted",)  # its positions are relative
PAIRS = [
    (family, name)
    for family in MODELS
    for name in DELTAS
    if not (family.startswith("t5") and name in NOT_FOR_T5)
]


# Without deltas


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", MODELS)
def test_rules_of_transformers_on_random_models(family: str, seed: int) -> None:
    model = build(family, seed, ("sdpa", "eager")[seed % 2])
    for number in range(5):
        sources, decoding = draw(100 * seed + number, family)
        generated = generate(model, **sources, decoding=decoding, rules="transformers")
        assert torch.equal(generated, generate_today(model, sources, decoding)), decoding


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", MODELS)
def test_rules_of_2021_on_random_models(family: str, seed: int) -> None:
    model = build(family, seed, ("eager", "sdpa")[seed % 2])
    for number in range(3):
        sources, decoding = draw(100 * seed + number, family, num_beams=(2, 3, 5)[number])
        generated = generate(model, **sources, decoding=decoding)
        width = prompt_width(family, sources)
        assert cut(generated, width) == generate_then(model, sources, decoding), decoding


ENDS = [EOS, 5, 11, 17]  # as in today's chat models


@pytest.mark.parametrize("family", sampled(((model,) for model in MODELS), 3))
def test_several_end_tokens_as_in_transformers(family: str) -> None:
    model = build(family, 3, "sdpa")
    for number in range(12):
        sources, decoding = draw(number, family, eos_token_id=ENDS)
        generated = generate(model, **sources, decoding=decoding, rules="transformers")
        assert torch.equal(generated, generate_today(model, sources, decoding)), decoding


@pytest.mark.parametrize("family", sampled(((model,) for model in MODELS), 3))
def test_several_end_tokens_under_the_rules_of_2021(family: str) -> None:
    model = build(family, 3, "sdpa")
    for number in range(6):
        sources, decoding = draw(number, family)
        one = generate(model, **sources, decoding=decoding)
        settings = {**decoding, "eos_token_id": [EOS, EOS]}
        assert torch.equal(generate(model, **sources, decoding=settings), one)
        width = prompt_width(family, sources)
        several = {**decoding, "eos_token_id": ENDS, "forced_eos": False}
        for row in generate(model, **sources, decoding=several)[:, width:].tolist():
            new = [token for token in row if token != PAD]
            assert not set(new[:-1]) & set(ENDS), new


# With deltas


@pytest.mark.parametrize(("family", "name"), sampled(PAIRS, 8))
def test_deltas(family: str, name: str) -> None:
    seed = list(DELTAS).index(name)
    model = with_deltas(family, name, seed, ("sdpa", "eager")[seed % 2])
    sources, decoding = draw(seed, family, num_beams=3)
    width = prompt_width(family, sources)
    generated = generate(model, **sources, decoding=decoding)
    assert cut(generated, width) == generate_then(model, sources, decoding)
    greedy = {**decoding, "num_beams": 1}
    tokens = [generate(model, **sources, decoding=greedy, rules=rules) for rules in RULES]
    assert torch.equal(tokens[0], tokens[1])
    assert cut(tokens[0], width) == generate_then(
        model, sources, {**greedy, "length_penalty": 0.0, "early_stopping": False}
    )


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_recomputation_gives_the_same_tokens(
    family: str, beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_deltas(family, "mam")
    sources, decoding = draw(3, family, num_beams=beams)
    expected = generate(model, **sources, decoding=decoding)
    calls = []
    run = uncached.UncachedDecoder.__call__

    def record(self: Any, *args: Any) -> Any:
        calls.append(self)
        return run(self, *args)

    monkeypatch.setattr(uncached.UncachedDecoder, "__call__", record)
    monkeypatch.setattr("unipeft_run.evaluation.generation.is_recomputed", lambda _: True)
    assert torch.equal(generate(model, **sources, decoding=decoding), expected)
    assert calls


@pytest.mark.parametrize(
    ("method", "family"), sampled(product(SLOTTED, ("llama", "t5", "gpt2", "t5_gated")), 5)
)
def test_every_method(method: str, family: str) -> None:
    seed = SLOTTED.index(method)
    model = with_deltas(family, method, seed, ("sdpa", "eager")[seed % 2])
    for beams in (1, 3):
        sources, decoding = draw(seed, family, num_beams=beams, early_stopping=True)
        width = prompt_width(family, sources)
        if beams == 1:
            decoding["length_penalty"] = 0.0
        generated = generate(model, **sources, decoding=decoding)
        assert cut(generated, width) == generate_then(model, sources, decoding)


LIBRARY = [
    pytest.param(family, name, marks=() if name.endswith(("/lora", "/oft")) else pytest.mark.slow)
    for family in ("llama", "t5")
    for name in tuners.METHODS
    if name != "peft/lily"  # its gates are means over all tokens of a batch
    and (family, name) != ("t5", "peft/trainable_tokens")  # refused: tied embeddings
]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(("family", "method"), LIBRARY)
def test_methods_of_the_peft_library(family: str, method: str) -> None:
    pytest.importorskip("peft")
    model = build(family, 2).float()
    attach(model, {})
    attach_tuner(model, tuners.tuner_of(method))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.double().parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.add_(0.1 * torch.randn_like(parameter))
    sources, decoding = draw(3, family, num_beams=3)
    generated = generate(model, **sources, decoding=decoding)
    width = prompt_width(family, sources)
    assert cut(generated, width) == generate_then(model, sources, decoding)


def test_the_signature_says_that_the_model_is_recomputed() -> None:
    decoding = DecodingConfig(num_beams=2, max_new_tokens=5)
    gated, ours = with_deltas("llama", "gated_prefix_per_example"), build("llama")
    assert describe(gated, decoding) == f"{describe(ours, decoding)}|cache:False"
    assert describe(ours, decoding).endswith("|rules:2021")
    assert "max_length" not in describe(ours, decoding)
