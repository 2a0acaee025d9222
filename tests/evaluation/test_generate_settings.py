"""`generate` checks its settings and leaves the model as it was."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from tiny_generation import tiny_case

from unipeft_run import generate


def test_the_model_is_left_as_it_was() -> None:
    model, sources, decoding = tiny_case()
    before = model.config._attn_implementation
    hooks = len(model.get_decoder().embed_positions._forward_pre_hooks)
    with pytest.raises(IndexError):  # more tokens than positions
        generate(model, **sources, decoding={**decoding, "max_length": 99, "min_length": 99})
    assert model.config._attn_implementation == before
    assert len(model.get_decoder().embed_positions._forward_pre_hooks) == hooks


def test_the_models_own_generation_settings_are_ignored() -> None:
    model, sources, decoding = tiny_case()
    stated = generate(model, **sources, decoding=decoding)
    model.generation_config.forced_bos_token_id = 17
    model.config.forced_eos_token_id = 18
    assert torch.equal(generate(model, **sources, decoding=decoding), stated)


def test_other_attention_falls_back_to_transformers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, sources, decoding = tiny_case(early_stopping=True)
    expected = generate(model, **sources, decoding=decoding, rules="transformers")
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "paged|sdpa")
    monkeypatch.setattr(model, "generate", lambda **_: expected)
    with caplog.at_level(logging.INFO):
        assert torch.equal(generate(model, **sources, decoding=decoding), expected)
    assert "Generating through transformers, under the beam-search rules of transformers" in (
        caplog.text
    )
    assert "the attention implementation paged|sdpa is not supported" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 3}, r"no key decoding\.beams"),
        ({"num_beam": 3}, r"no key decoding\.num_beam; did you mean decoding\.num_beams\?"),
        ({"num_beams": 0}, r"decoding.num_beams=0: must be at least 1"),
        ({"num_beams": True}, r"decoding.num_beams=true: must be a whole number"),
        ({"max_length": 1}, r"decoding.max_length=1: must be at least 2"),
        ({"max_length": 2.5}, r"decoding.max_length=2.5: must be a whole number"),
        ({"min_length": -1}, r"decoding.min_length=-1: must be at least 0"),
        ({"length_penalty": "1"}, r"decoding.length_penalty=1: must be a number"),
        ({"early_stopping": "never"}, r"early_stopping=never: must be true or false"),
        ({"eos_token_id": 96}, r"eos_token_id=96: must be a token id from 0 to 95"),
        ({"eos_token_id": [2, 96]}, r"eos_token_id=96: must be a token id"),
        ({"forced_bos": True, "bos_token_id": None}, r"forced_bos=true needs decoding.bos_token"),
        ({"decoder_start_token_id": None}, r"decoder_start_token_id is missing"),
        ({"rules": "2020"}, r"decoding.rules=2020 is unknown.*; choose from 2021, transformers"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    model, sources, decoding = tiny_case()
    with pytest.raises(ValueError, match=message):
        generate(model, **sources, decoding={**decoding, **settings})


def test_a_length_is_required() -> None:
    model, sources, _ = tiny_case()
    with pytest.raises(ValueError, match=r"decoding.max_length has no value"):
        generate(model, **sources, decoding={"num_beams": 2})


def test_rules_may_be_given_in_decoding_as_a_number() -> None:
    model, sources, decoding = tiny_case()
    expected = generate(model, **sources, decoding=decoding, rules="2021")
    number = generate(model, **sources, decoding={**decoding, "rules": 2021}, rules="transformers")
    assert torch.equal(number, expected)
