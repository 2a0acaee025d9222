"""The names and shapes of the parameters of ViT and CLIP."""

from typing import Any

from unipeft_run.backbones.shapes_parts import Layer, Named, encoder_layers, linear, norm

VIT_LAYER = Layer(
    inputs=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    output="attention.o_proj",
    up="mlp.fc1",
    down="mlp.fc2",
    norms=("layernorm_before", "layernorm_after"),
)
CLIP_LAYER = Layer(
    inputs=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    output="self_attn.out_proj",
    up="mlp.fc1",
    down="mlp.fc2",
    norms=("layer_norm1", "layer_norm2"),
)


def vit(config: Any) -> Named:
    """Yield the parameters of ViT with a classifier."""
    width, top = config.hidden_size, "vit.embeddings"
    yield f"{top}.cls_token", (1, 1, width)
    yield f"{top}.position_embeddings", (1, _patches(config) + 1, width)
    yield f"{top}.patch_embeddings.projection.weight", _patch_shape(config)
    yield f"{top}.patch_embeddings.projection.bias", (width,)
    yield from encoder_layers(config, "vit.layers", VIT_LAYER, input_bias=config.qkv_bias)
    yield from norm("vit.layernorm", width)
    yield from linear("classifier", config.num_labels, width)


def clip(config: Any) -> Named:
    """Yield the parameters of CLIP, a text and a vision tower."""
    yield "logit_scale", ()
    text, vision = config.text_config, config.vision_config
    top = "text_model.embeddings"
    yield f"{top}.token_embedding.weight", (text.vocab_size, text.hidden_size)
    positions = text.max_position_embeddings, text.hidden_size
    yield f"{top}.position_embedding.weight", positions
    yield from encoder_layers(text, "text_model.encoder.layers", CLIP_LAYER)
    yield from norm("text_model.final_layer_norm", text.hidden_size)
    yield from _clip_vision(vision)
    for name, tower in (("visual", vision), ("text", text)):
        yield from linear(
            f"{name}_projection", config.projection_dim, tower.hidden_size, bias=False
        )


def _clip_vision(config: Any) -> Named:
    width, top = config.hidden_size, "vision_model"
    yield f"{top}.embeddings.class_embedding", (width,)
    yield f"{top}.embeddings.patch_embedding.weight", _patch_shape(config)
    yield f"{top}.embeddings.position_embedding.weight", (_patches(config) + 1, width)
    yield from norm(f"{top}.pre_layrnorm", width)
    yield from encoder_layers(config, f"{top}.encoder.layers", CLIP_LAYER)
    yield from norm(f"{top}.post_layernorm", width)


def _patches(config: Any) -> int:
    return int(config.image_size // config.patch_size) ** 2


def _patch_shape(config: Any) -> tuple[int, ...]:
    return config.hidden_size, config.num_channels, config.patch_size, config.patch_size
