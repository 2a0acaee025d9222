"""BART: post-norm encoder-decoder; the FFN adapter reads what fc1 reads (reference 3.1)."""

from unipeft_run.backbones.base import Backbone, Prompt

ATTENTION = {
    "attn.heads": "{a}:in -> {a}:heads",
    "attn.context": "{a}:in -> {a}.out_proj:in",
    "attn.output": "{a}:in -> {a}.out_proj:out",
    "attn.query": "{a}.q_proj:in -> {a}.q_proj:out",
    "attn.key": "{a}.k_proj:in -> {a}.k_proj:out",
    "attn.value": "{a}.v_proj:in -> {a}.v_proj:out",
}

BART = Backbone(
    family="bart",
    model="BartForConditionalGeneration",
    stacks={
        "encoder": ("model.encoder.layers", {"self": "self_attn"}),
        "decoder": ("model.decoder.layers", {"self": "self_attn", "cross": "encoder_attn"}),
    },
    attention=ATTENTION,
    ffn={
        "ffn": "fc1:in -> fc2:dropped",
        "ffn.normed": "fc1:in -> fc2:dropped",
        "ffn.up": "fc1:in -> fc1:out",
        "ffn.down": "fc2:in -> fc2:out",
        "ffn.block": "final_layer_norm:of -> final_layer_norm:in",
    },
    query="q_proj",
    prompt=Prompt(
        write="model.encoder.layernorm_embedding:in",
        masks=(
            ("model.encoder", "attention_mask"),
            ("model.decoder", "encoder_attention_mask"),
        ),
    ),
    hidden_dropout="dropout",
    attention_dropout="attention_dropout",
    num_heads={"encoder": "encoder_attention_heads", "decoder": "decoder_attention_heads"},
    ffn_width={"encoder": "encoder_ffn_dim", "decoder": "decoder_ffn_dim"},
    reference_query={"softmax": "scaled", "relu": "normed_unscaled"},
    activation="activation_fn",
    residual_dropout=("self_attn.out_proj", "encoder_attn.out_proj", "fc2"),
    decoder_start="config",
)
