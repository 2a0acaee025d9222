"""Tiny models with peaked predictions, and random sources and decoding settings for them."""

from __future__ import annotations

import random
from typing import Any

import torch
from attached_models import perturbed_model
from tiny import backbone
from transformers import GenerationConfig

PAD, EOS = 1, 2
STARTS = {"bart": 2, "mbart": 90}


def peaked_model(family: str, method: str | None = None, seed: int = 0, core: str = "sdpa") -> Any:
    """Build a float64 model, without deltas if `method` is None, with varied targets."""
    model = backbone(family, seed) if method is None else perturbed_model(family, method, core)
    if method is None:
        model.set_attn_implementation(core)
    rng = random.Random(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "delta_" not in name:  # from 0.02 to 0.3
                parameter *= 15
        model.final_logits_bias[0, EOS] = rng.uniform(2, 6)
    model.generation_config = GenerationConfig()
    return model.double()


def draw_sources(rng: random.Random) -> dict[str, torch.Tensor]:
    """Draw one to five sources of 3 to 12 tokens, padded on the right or on the left."""
    lengths = [rng.randint(3, 12) for _ in range(rng.randint(1, 5))]
    ids = torch.full((len(lengths), max(lengths)), PAD)
    mask = torch.zeros_like(ids)
    left = rng.random() < 0.3
    for row, length in enumerate(lengths):
        place = slice(-length, None) if left else slice(length)
        ids[row, place] = torch.tensor([rng.randrange(3, 90) for _ in range(length)])
        mask[row, place] = 1
    return {"input_ids": ids, "attention_mask": mask}


def draw_decoding(rng: random.Random, family: str, beams: tuple[int, ...] = (2, 3, 6)) -> Any:
    longest = rng.randint(3, 16)
    return {
        "num_beams": rng.choice(beams),
        "max_length": longest,
        "min_length": rng.choice((0, 0, 3, longest)),
        "no_repeat_ngram_size": rng.choice((0, 1, 2, 3)),
        "length_penalty": rng.choice((-0.5, 0.0, 0.5, 1.0, 2.0)),
        "early_stopping": rng.random() < 0.5,
        "forced_bos": rng.random() < 0.3,
        "forced_eos": rng.random() < 0.5,
        "decoder_start_token_id": STARTS[family],
    }


def generate_today(
    model: Any, sources: dict[str, torch.Tensor], decoding: dict[str, Any]
) -> torch.Tensor:
    """Call transformers' own `generate` with the same settings."""
    config = {**decoding, "do_sample": False, "pad_token_id": PAD, "eos_token_id": EOS}
    config["forced_bos_token_id"] = 0 if config.pop("forced_bos") else None
    config["forced_eos_token_id"] = EOS if config.pop("forced_eos") else None
    if config["num_beams"] == 1:
        del config["length_penalty"], config["early_stopping"]
    return model.generate(**sources, generation_config=GenerationConfig(**config))


def without_padding(tokens: torch.Tensor) -> list[list[int]]:
    """Cut each row after its end token, at which the search stops."""
    rows = []
    for first, *row in tokens.tolist():
        end = row.index(EOS) + 1 if EOS in row else len(row)
        rows.append([first, *row[:end]])
    return rows


def draw(seed: int, family: str, **settings: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Draw sources and decoding settings."""
    rng = random.Random(seed)
    return draw_sources(rng), {**draw_decoding(rng, family), **settings}


def tiny_case(family: str = "bart", **settings: Any) -> tuple[Any, dict[str, torch.Tensor], Any]:
    """Return a model, sources that finish at different steps, and decoding settings."""
    sources = draw_sources(random.Random(5))
    decoding = {"num_beams": 3, "max_length": 12, **settings}
    return peaked_model(family, seed=4), sources, decoding
