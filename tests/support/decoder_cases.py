"""Random prompts and settings for decoder-only models and T5, and reference searches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from beam_search_2021 import generate_2021
from tiny_decoders import EOS, MODELS, PAD
from tiny_generation import draw_decoding, draw_sources
from torch import Tensor
from transformers import GenerationConfig

from unipeft_run.evaluation.generation.causal import Prompts

CAUSAL = [family for family in MODELS if not family.startswith("t5")]


def draw(seed: int, family: str, **settings: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Draw prompts or sources of 1 to 12 tokens, padded on the left, and decoding settings."""
    rng = random.Random(seed)
    sources = draw_sources(rng)
    if family in CAUSAL:
        prompts = Prompts.align(**sources)
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
    config = {"eos_token_id": EOS, **decoding, "do_sample": False, "pad_token_id": PAD}
    del config["forced_bos"]
    if "max_new_tokens" in config:
        del config["max_length"]
        if not model.config.is_encoder_decoder:
            config["min_new_tokens"] = config.pop("min_length")
    ends = config["eos_token_id"]
    config["forced_eos_token_id"] = ends if config.pop("forced_eos") else None
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
