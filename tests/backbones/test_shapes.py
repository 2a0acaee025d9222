"""Parameter names and shapes derived from a configuration, against models on the meta device."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch
import transformers

from unipeft_run.backbones.architectures import ARCHITECTURES, architecture
from unipeft_run.backbones.families import FAMILIES, family_of
from unipeft_run.backbones.shapes import SHAPES, shapes_of, size_of
from unipeft_run.config.messages import find_option, options
from unipeft_run.config.schema import BackboneConfig

Shapes = dict[str, tuple[int, ...]]
TINY = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
GROUPED = {**TINY, "num_key_value_heads": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "gemma": {**GROUPED, "head_dim": 16},
    "llama with biases": {**GROUPED, "attention_bias": True, "mlp_bias": True},
    "llama, tied": {**GROUPED, "tie_word_embeddings": True},
    "gpt2, untied": {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48},
    "vit without biases": {**TINY, "image_size": 32, "patch_size": 8, "qkv_bias": False},
}
VARIANTS["gpt2, untied"]["tie_word_embeddings"] = False
PUBLISHED = {  # parameters in millions, as in the papers and model cards
    "facebook/bart-large": 406,
    "facebook/mbart-large-cc25": 611,
    "roberta-base": 125,
    "roberta-large": 355,
    "bert-base-uncased": 109,
    "bert-large-uncased": 335,
    "gpt2": 124,
    "t5-base": 223,
    "google/t5-v1_1-base": 248,
    "huggyllama/llama-7b": 6_738,
    "huggyllama/llama-13b": 13_016,
    "meta-llama/Llama-2-7b-hf": 6_738,
    "google/vit-base-patch16-224-in21k": 86,
    "openai/clip-vit-base-patch32": 151,
    "openai/clip-vit-base-patch16": 150,
}


def instantiate(config: Any) -> Shapes:
    """Return the shapes of the model, with the head that T5 1.1 has in its checkpoints."""
    with torch.device("meta"):
        model = getattr(transformers, family_of(config).model)(config)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    if getattr(config, "scale_decoder_outputs", True) is False:
        shapes["lm_head.weight"] = shapes["shared.weight"]
    return shapes


@pytest.mark.parametrize("hub", ARCHITECTURES)
def test_the_shapes_equal_transformers(hub: str) -> None:
    settings = dict(ARCHITECTURES[hub])
    family = family_of(settings)
    config = getattr(transformers, family.config_class)(
        **{key: value for key, value in settings.items() if key != "model_type"}
    )
    theirs = instantiate(config)
    assert shapes_of(config) == theirs
    described = BackboneConfig(name="x", family=family.name, hub=hub, weights="pretrained")
    assert shapes_of(architecture(described, config.num_labels)) == theirs
    assert round(sum(map(prod, theirs.values())) / 1e6) == PUBLISHED[hub]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_variants_of_a_family(name: str) -> None:
    model_type = name.replace(",", " ").split()[0]
    config_class = next(
        family.config_class for family in FAMILIES.values() if family.name == model_type
    )
    config = getattr(transformers, config_class)(**VARIANTS[name])
    assert shapes_of(config) == instantiate(config)


def test_every_family_has_its_shapes() -> None:
    assert {family.model_type or family.name for family in FAMILIES.values()} == set(SHAPES)


def test_every_backbone_on_the_hub_is_counted_without_it() -> None:
    import yaml

    for name in options("backbone"):
        described = BackboneConfig(**yaml.safe_load(find_option("backbone", name).read_text()))
        assert described.name == name
        if described.hub is not None:
            assert family_of(ARCHITECTURES[described.hub]).name == described.family


@pytest.mark.parametrize(
    ("hub", "change", "parameters"),
    [
        ("huggyllama/llama-7b", {"num_hidden_layers": 1}, 2 * 32000 * 4096),
        ("openai/clip-vit-base-patch32", {"text_config.num_hidden_layers": 1}, 0),
        ("t5-base", {"num_layers": 1}, 0),
    ],
)
def test_fields_may_be_overridden(hub: str, change: dict[str, Any], parameters: int) -> None:
    family = family_of(ARCHITECTURES[hub]).name
    known: dict[str, Any] = {"name": "x", "family": family, "hub": hub, "weights": "pretrained"}
    small = size_of(shapes_of(architecture(BackboneConfig(**known, config=change), 2)))
    assert parameters < small < size_of(shapes_of(architecture(BackboneConfig(**known), 2)))
