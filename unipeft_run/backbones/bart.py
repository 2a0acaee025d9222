"""BART: post-norm encoder-decoder; the FFN adapter reads the input of fc1."""

from unipeft_run.backbones.family import Family, Prompt, Stack
from unipeft_run.backbones.fields import (
    ACTIVATION,
    DEVIATION,
    FLAG,
    HEADS,
    LAYERS,
    PROBABILITY,
    ROWS,
    TOKEN,
    WIDTH,
)

ATTENTION = {
    "attn.heads": "{a}:in -> {a}:heads",
    "attn.context": "{a}:in -> {a}.out_proj:in",
    "attn.output": "{a}:in -> {a}.out_proj:out",
    "attn.projection": "{a}.out_proj:in -> {a}.out_proj:out",
    "attn.query": "{a}.q_proj:in -> {a}.q_proj:out",
    "attn.key": "{a}.k_proj:in -> {a}.k_proj:out",
    "attn.value": "{a}.v_proj:in -> {a}.v_proj:out",
}
FIELDS = {
    "vocab_size": ROWS,
    "max_position_embeddings": ROWS,
    "d_model": WIDTH,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": WIDTH,
    "decoder_ffn_dim": WIDTH,
    "encoder_layerdrop": PROBABILITY,
    "decoder_layerdrop": PROBABILITY,
    "activation_function": ACTIVATION,
    "dropout": PROBABILITY,
    "attention_dropout": PROBABILITY,
    "activation_dropout": PROBABILITY,
    "classifier_dropout": PROBABILITY.or_null(),
    "init_std": DEVIATION,
    "scale_embedding": FLAG,
    "use_cache": FLAG,
    "pad_token_id": TOKEN,
    "bos_token_id": TOKEN,
    "eos_token_id": TOKEN,
    "decoder_start_token_id": TOKEN,
    "forced_eos_token_id": TOKEN.or_null(),
}

ENCODER = Stack(
    path="model.encoder.layers",
    role="encoder",
    attentions={"self": "self_attn"},
    heads="encoder_attention_heads",
    ffn_width="encoder_ffn_dim",
)
DECODER = Stack(
    path="model.decoder.layers",
    role="decoder",
    attentions={"self": "self_attn", "cross": "encoder_attn"},
    heads="decoder_attention_heads",
    ffn_width="decoder_ffn_dim",
)

BART = Family(
    name="bart",
    task_type="seq2seq",
    model="BartForConditionalGeneration",
    config_class="BartConfig",
    tokenizer="RobertaTokenizer",
    tokenizer_names=("BartTokenizer",),
    fields=FIELDS,
    aliases={
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "encoder_attention_heads",
    },
    fixed={"is_encoder_decoder": True, "is_decoder": False, "tie_word_embeddings": True},
    stacks={"encoder": ENCODER, "decoder": DECODER},
    attention=ATTENTION,
    ffn={
        "ffn": "fc1:in -> fc2:dropped",
        "ffn.normed": "fc1:in -> fc2:dropped",
        "ffn.up": "fc1:in -> fc1:out",
        "ffn.hidden": "fc2:in -> fc2:in",
        "ffn.down": "fc2:in -> fc2:out",
        "ffn.block": "final_layer_norm:of -> final_layer_norm:in",
    },
    residual={"attn": "{a}:in", "ffn": "fc1:in"},
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
    reference_query={"softmax": "scaled", "relu": "normed_unscaled"},
    activation="activation_fn",
    residual_dropout=("self_attn.out_proj", "encoder_attn.out_proj", "fc2"),
    decoder_start="config",
)
