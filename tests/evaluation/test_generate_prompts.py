"""Prompts, lengths and refusals of `generate` with decoder-only models and T5."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from decoder_cases import cut, draw, generate_then, generate_today
from tiny_decoders import EOS, PAD, build, with_deltas

from unipeft_run import generate
from unipeft_run.config.schema import DecodingConfig
from unipeft_run.evaluation.generation import StepGraphs, describe
from unipeft_run.evaluation.generation.beam_search import RULES


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("family", ["mistral", "gpt2"])
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


@pytest.mark.parametrize("shortest", [0, 3, 7])
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_min_length_counts_new_tokens_if_the_maximum_does(family: str, shortest: int) -> None:
    model = build(family, 3, "sdpa")
    for seed in range(6):
        sources, decoding = draw(seed, family, min_length=shortest, max_new_tokens=7)
        generated = generate(model, **sources, decoding=decoding, rules="transformers")
        assert torch.equal(generated, generate_today(model, sources, decoding)), decoding


def test_the_signature_says_that_min_length_counts_new_tokens() -> None:
    decoding = DecodingConfig(num_beams=2, max_new_tokens=5, min_length=3)
    assert "|min_new_tokens:3" in describe(build("llama"), decoding)
    assert "|min_length:3" in describe(build("t5"), decoding)


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
        generate(model, **sources, decoding=decoding, encoder_states=torch.zeros(1, 1, 1))
    for other in (model, build("t5")):
        with pytest.raises(ValueError, match="graphs are for BART and mBART"):
            StepGraphs(other)
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
