"""CLIP: a text tower (causal) and a vision tower, whose outputs are compared."""

from unipeft_run.backbones.family import Family, Stack
from unipeft_run.backbones.fields import (
    ACTIVATION,
    DEVIATION,
    EPSILON,
    HEADS,
    LAYERS,
    NUMBER,
    PROBABILITY,
    ROWS,
    TOKEN,
    WIDTH,
)
from unipeft_run.backbones.vit import FFN, attention_taps

TOWER = {
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "hidden_act": ACTIVATION,
    "attention_dropout": PROBABILITY,
    "layer_norm_eps": EPSILON,
    "initializer_range": DEVIATION,
    "initializer_factor": DEVIATION,
}
TEXT = {
    **TOWER,
    "vocab_size": ROWS,
    "max_position_embeddings": ROWS,
    "pad_token_id": TOKEN.or_null(),
    "bos_token_id": TOKEN,
    "eos_token_id": TOKEN,
}
VISION = {**TOWER, "image_size": WIDTH, "patch_size": WIDTH, "num_channels": WIDTH}


def _tower(name: str) -> Stack:
    return Stack(
        path=f"{name}_model.encoder.layers",
        role="encoder",
        attentions={"self": "self_attn"},
        ffn="mlp",
        config=f"{name}_config",
    )


CLIP = Family(
    name="clip",
    task_type="retrieval",
    model="CLIPModel",
    config_class="CLIPConfig",
    tokenizer="CLIPTokenizer",
    tokenizer_names=("RobertaTokenizer",),
    fields={
        **{f"text_config.{name}": rule for name, rule in TEXT.items()},
        **{f"vision_config.{name}": rule for name, rule in VISION.items()},
        "projection_dim": WIDTH,
        "logit_scale_init_value": NUMBER,
        "initializer_factor": DEVIATION,
    },
    stacks={"text": _tower("text"), "vision": _tower("vision")},
    attention=attention_taps("out_proj"),
    ffn=FFN,
    residual={"attn": "layer_norm1:in", "ffn": "layer_norm2:in"},
    query="q_proj",
    prompt=None,
    hidden_dropout=None,
    attention_dropout="attention_dropout",
    activation="{f}.activation_fn",
    max_positions="text_config.max_position_embeddings",
)
