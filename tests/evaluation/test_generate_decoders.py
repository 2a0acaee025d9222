"""`generate` with decoder-only models and T5, against transformers and the restated rules of 2021.

With deltas, the reference recomputes the whole model at every step, without a cache.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from beam_search_2021 import generate_2021
from tiny_decoders import DELTAS, EOS, MODELS, PAD, SLOTTED, build, with_deltas
from tiny_generation import draw_decoding, draw_sources
from torch import Tensor
from transformers import GenerationConfig

from unipeft_run import generate
from unipeft_run.config.schema import DecodingConfig
from unipeft_run.evaluation.generation import causal, describe, uncached
from unipeft_run.evaluation.generation.beam_search import RULES

FAST, ALL = 2, 20  # seeds
SEEDS = [pytest.param(seed, marks=() if seed < FAST else pytest.mark.slow) for seed in range(ALL)]
CAUSAL = [family for family in MODELS if not family.startswith("t5")]
NOT_FOR_T5 = ("prefix_shifted",)  # its positions are relative
PAIRS = [
    pytest.param(family, name, marks=() if family in ("llama", "gpt2", "t5") else pytest.mark.slow)
    for family in MODELS
    for name in DELTAS
    if not (family.startswith("t5") and name in NOT_FOR_T5)
]


def draw(seed: int, family: str, **settings: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Draw prompts or sources of 1 to 12 tokens, padded on the left, and decoding settings."""
    rng = random.Random(seed)
    sources = draw_sources(rng)
    if family in CAUSAL:
        prompts = causal.Prompts.align(**sources)
        sources = {"input_ids": prompts.tokens, "attention_mask": prompts.mask}
    decoding = {**draw_decoding(rng, "bart", beams=(1, 2, 3, 5)), "forced_bos": False}
    del decoding["decoder_start_token_id"]
    width = prompt_width(family, sources)
    for key in ("max_length", "min_length"):
        decoding[key] += (width - 1) * (decoding[key] > 0)
    return sources, {**decoding, **settings}


def prompt_width(family: str, sources: dict[str, Tensor]) -> int:
    return sources["input_ids"].size(1) if family in CAUSAL else 1


def cut(tokens: Tensor, width: int) -> list[list[int]]:
    """Cut each row after the first end token that follows the prompt."""
    rows = []
    for row in tokens.tolist():
        new = row[width:]
        rows.append(row[:width] + (new[: new.index(EOS) + 1] if EOS in new else new))
    return rows


def generate_today(model: Any, sources: dict[str, Tensor], decoding: dict[str, Any]) -> Tensor:
    """Call transformers' own `generate`."""
    config = {**decoding, "do_sample": False, "pad_token_id": PAD, "eos_token_id": EOS}
    del config["forced_bos"]
    config["forced_eos_token_id"] = EOS if config.pop("forced_eos") else None
    if config["num_beams"] == 1:
        del config["length_penalty"], config["early_stopping"]
    if model.config.is_encoder_decoder:
        config["decoder_start_token_id"] = PAD
    with sdpa_for_eager(model):
        tokens = model.generate(**sources, generation_config=GenerationConfig(**config))
    assert isinstance(tokens, Tensor)
    return tokens


def generate_then(model: Any, sources: dict[str, Tensor], decoding: dict[str, Any]) -> Any:
    """Generate under the restated rules of 2021, without a cache."""
    if model.config.is_encoder_decoder:
        decoding = {**decoding, "decoder_start_token_id": PAD}
    with sdpa_for_eager(model):
        return generate_2021(model, **sources, **decoding)


@contextmanager
def sdpa_for_eager(model: Any) -> Iterator[None]:
    """Avoid transformers' eager attention, which gives NaN for padding in float64."""
    core = model.config._attn_implementation
    if core == "eager":
        model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(core)


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


# With deltas


@pytest.mark.parametrize(("family", "name"), PAIRS)
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


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "t5_gated"])
@pytest.mark.parametrize("method", SLOTTED)
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


# Prompts


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("family", CAUSAL)
def test_padding_on_the_right_is_moved_to_the_left(family: str, rules: Any) -> None:
    model = build(family)
    sources, decoding = draw(1, family)
    expected = generate(model, **sources, decoding=decoding, rules=rules)
    turned = {name: torch.empty_like(tensor) for name, tensor in sources.items()}
    for row, mask in enumerate(sources["attention_mask"].bool()):
        for name, tensor in sources.items():
            turned[name][row] = torch.cat([tensor[row][mask], tensor[row][~mask]])
    assert not torch.equal(turned["input_ids"], sources["input_ids"])
    assert torch.equal(generate(model, **turned, decoding=decoding, rules=rules), expected)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_padding_of_a_batch_changes_nothing(family: str) -> None:
    model = with_deltas(family, "mam")
    sources, _ = draw(5, family)
    decoding = {"num_beams": 3, "max_new_tokens": 9}
    width = sources["input_ids"].size(1)
    together = cut(generate(model, **sources, decoding=decoding, rules="transformers"), width)
    assert len(together) > 1
    for row, mask in zip(together, sources["attention_mask"].bool(), strict=True):
        prompt = torch.tensor(row[:width])[mask][None]
        single = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
        tokens = generate(model, **single, decoding=decoding, rules="transformers")
        assert cut(tokens, prompt.size(1))[0][prompt.size(1) :] == row[width:]


@pytest.mark.parametrize("name", ["prompt", "prefix", "prefix_shifted"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_prompts_of_one_token(family: str, name: str) -> None:
    model = with_deltas(family, name)
    sources = {"input_ids": torch.tensor([[5], [9]]), "attention_mask": torch.ones(2, 1).long()}
    _, decoding = draw(1, family, num_beams=3, max_length=8, min_length=0)
    generated = generate(model, **sources, decoding=decoding)
    assert cut(generated, 1) == generate_then(model, sources, decoding)


def test_max_new_tokens_takes_precedence() -> None:
    for family, width in (("llama", None), ("t5", 1)):
        model = build(family)
        sources, decoding = draw(2, family, min_length=0)
        width = width or sources["input_ids"].size(1)
        expected = generate(model, **sources, decoding={**decoding, "max_length": width + 7})
        new = {**decoding, "max_length": 2, "max_new_tokens": 7}
        assert torch.equal(generate(model, **sources, decoding=new), expected)


def test_one_new_token() -> None:
    model = build("llama")
    sources, decoding = draw(2, "llama", forced_eos=False, max_new_tokens=1, min_length=0)
    for beams in (1, 3):
        settings = {**decoding, "num_beams": beams}
        generated = generate(model, **sources, decoding=settings, rules="transformers")
        assert generated.size(1) == sources["input_ids"].size(1) + 1


def test_rows_are_padded_with_the_end_token_without_a_padding_token() -> None:
    model = build("llama")
    model.config.pad_token_id = None
    sources, decoding = draw(4, "llama", num_beams=3, min_length=0)
    padded = generate(model, **sources, decoding={**decoding, "pad_token_id": PAD})
    generated = generate(model, **sources, decoding=decoding)
    new = padded[:, sources["input_ids"].size(1) :]
    new[new == PAD] = EOS
    assert torch.equal(generated, padded)


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize("rules", RULES)
def test_finished_sources_leave_the_batch(
    family: str, rules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_deltas(family, "prefix")
    sources, decoding = draw(1, family, num_beams=3, min_length=0, early_stopping=True)
    decoding |= {"max_new_tokens": 16}
    leaving = generate(model, **sources, decoding=decoding, rules=rules)
    monkeypatch.setattr("unipeft_run.evaluation.generation.search.DROP_FINISHED_AT", 2.0)
    assert torch.equal(generate(model, **sources, decoding=decoding, rules=rules), leaving)


@pytest.mark.parametrize("core", ["sdpa", "eager"])
@pytest.mark.parametrize("name", [None, "mam", "prompt"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_float32_gives_the_tokens_of_double(family: str, name: str | None, core: str) -> None:
    model = build(family, 0, core) if name is None else with_deltas(family, name, 0, core)
    sources, decoding = draw(8, family, num_beams=2, max_new_tokens=5)
    exact = generate(model, **sources, decoding=decoding)
    assert torch.equal(generate(model.float(), **sources, decoding=decoding), exact)
    generated = generate(model.bfloat16(), **sources, decoding=decoding)
    assert generated.dtype == torch.int64


# Refusals and the fallback


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_length": 3}, r"max_length=3: includes the prompts, which have \d+ tokens"),
        ({"max_length": None}, r"max_length has no value; give it or decoding.max_new_tokens"),
        ({"max_new_tokens": 0}, r"decoding.max_new_tokens=0: must be at least 1"),
    ],
)
def test_wrong_lengths(change: dict[str, Any], message: str) -> None:
    sources, decoding = draw(2, "llama")
    with pytest.raises(ValueError, match=message):
        generate(build("llama"), **sources, decoding={**decoding, **change})


def test_wrong_prompts_and_arguments() -> None:
    model = build("llama")
    sources, decoding = draw(2, "llama")
    with pytest.raises(ValueError, match="for encoder-decoder models"):
        generate(model, **sources, decoding=decoding, static=True)
    with pytest.raises(ValueError, match="static steps need the positions of BART and mBART"):
        generate(build("t5"), **sources, decoding={"num_beams": 1, "max_length": 5}, static=True)
    sources["attention_mask"][0] = 0
    with pytest.raises(ValueError, match="a prompt has no tokens"):
        generate(model, **sources, decoding=decoding)


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_other_attention_falls_back_to_transformers(
    family: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = build(family)
    sources, decoding = draw(5, family, num_beams=3)
    expected = generate(model, **sources, decoding=decoding, rules="transformers")
    monkeypatch.setattr("unipeft_run.evaluation.generation.find_obstacle", lambda _: "a reason")
    with caplog.at_level(logging.INFO):
        assert torch.equal(generate(model, **sources, decoding=decoding), expected)
    assert "under the beam-search rules of transformers: a reason" in caplog.text


def test_the_signature_says_that_the_model_is_recomputed() -> None:
    decoding = DecodingConfig(num_beams=2, max_new_tokens=5)
    gated, ours = with_deltas("llama", "gated_prefix_per_example"), build("llama")
    assert describe(gated, decoding) == f"{describe(ours, decoding)}|cache:False"
    assert describe(ours, decoding).endswith("|rules:2021")
    assert "max_length" not in describe(ours, decoding)
