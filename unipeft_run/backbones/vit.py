"""ViT: a pre-norm encoder of image patches, with a classifier on its first position.

One dropout module serves attention and the FFN, so changes are written before it. A prompt
is prepended to the embedded patches, and the classifier reads its first vector.
"""

from unipeft_run.backbones.family import Family, Prompt, Stack
from unipeft_run.backbones.fields import (
    ACTIVATION,
    DEVIATION,
    EPSILON,
    FLAG,
    HEADS,
    LAYERS,
    PROBABILITY,
    WIDTH,
)

# the taps that ViT and both towers of CLIP share; their output projections differ in name
FFN = {
    "ffn": "{f}.fc1:in -> {f}:out",
    "ffn.normed": "{f}.fc1:in -> {f}:out",
    "ffn.up": "{f}.fc1:in -> {f}.fc1:out",
    "ffn.down": "{f}.fc2:in -> {f}.fc2:out",
    "ffn.hidden": "{f}.fc2:in -> {f}.fc2:in",
    "ffn.block": ":same -> :out",
}


def attention_taps(output: str) -> dict[str, str]:
    """Return the attention taps with `output`, the name of the output projection."""
    return {
        "attn.heads": "{a}:in -> {a}:heads",
        "attn.context": f"{{a}}:in -> {{a}}.{output}:in",
        "attn.output": f"{{a}}:in -> {{a}}.{output}:out",
        "attn.projection": f"{{a}}.{output}:in -> {{a}}.{output}:out",
        "attn.query": "{a}.q_proj:in -> {a}.q_proj:out",
        "attn.key": "{a}.k_proj:in -> {a}.k_proj:out",
        "attn.value": "{a}.v_proj:in -> {a}.v_proj:out",
    }


VIT = Family(
    name="vit",
    task_type="image_classification",
    model="ViTForImageClassification",
    config_class="ViTConfig",
    tokenizer="",
    fields={
        "image_size": WIDTH,
        "patch_size": WIDTH,
        "num_channels": WIDTH,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": WIDTH,
        "hidden_act": ACTIVATION,
        "hidden_dropout_prob": PROBABILITY,
        "attention_probs_dropout_prob": PROBABILITY,
        "initializer_range": DEVIATION,
        "layer_norm_eps": EPSILON,
        "qkv_bias": FLAG,
    },
    stacks={
        "encoder": Stack(
            path="vit.layers", role="encoder", attentions={"self": "attention"}, ffn="mlp"
        )
    },
    attention=attention_taps("o_proj"),
    ffn=FFN,
    residual={"attn": "layernorm_before:in", "ffn": "layernorm_after:in"},
    query="q_proj",
    prompt=Prompt(write="vit.embeddings:out", trim="vit", untrimmed=("ViTForImageClassification",)),
    hidden_dropout="hidden_dropout_prob",
    attention_dropout="attention_probs_dropout_prob",
    activation="{f}.activation_fn",
    head=("classifier.*",),
    max_positions=None,
)
