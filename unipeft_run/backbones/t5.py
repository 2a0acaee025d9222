"""T5: a pre-norm encoder-decoder with relative positions and without biases.

`T5` is version 1.0. In version 1.1 and its successors the FFN is gated: `T5_GATED`.
Attention is not scaled. A prefix counts as tokens in the relative bias: its vectors are at key
positions 0 to L - 1, and every token at L plus its own, while queries stay where they are.
"""

from dataclasses import replace

from unipeft_run.backbones.family import Family, Prompt, Stack
from unipeft_run.backbones.fields import (
    DEVIATION,
    EPSILON,
    FLAG,
    HEADS,
    LAYERS,
    PROBABILITY,
    ROWS,
    TOKEN,
    WIDTH,
    one_of,
)

GATED = ("gated-gelu", "gated-silu")
PLAIN = ("relu",)
FIELDS = {
    "vocab_size": ROWS,
    "d_model": WIDTH,
    "d_kv": WIDTH,
    "d_ff": WIDTH,
    "num_layers": LAYERS,
    "num_decoder_layers": LAYERS.or_null(),
    "num_heads": HEADS,
    "relative_attention_num_buckets": WIDTH,
    "relative_attention_max_distance": WIDTH,
    "dropout_rate": PROBABILITY,
    "classifier_dropout": PROBABILITY,
    "layer_norm_epsilon": EPSILON,
    "initializer_factor": DEVIATION,
    "feed_forward_proj": one_of(*PLAIN),
    "tie_word_embeddings": FLAG,  # false in the files of version 1.1: outputs are not scaled
    "scale_decoder_outputs": FLAG,  # the same in files written by transformers 5
    "use_cache": FLAG,
    "pad_token_id": TOKEN,
    "eos_token_id": TOKEN,
    "decoder_start_token_id": TOKEN,
}


def _stack(name: str, attentions: dict[str, str]) -> Stack:
    return Stack(
        path=f"{name}.block",
        role=name,  # type: ignore[arg-type]
        attentions=attentions,
        ffn=f"layer.{len(attentions)}",
        heads="num_heads",
        head_width="d_kv",
        ffn_width="d_ff",
    )


T5 = Family(
    name="t5",
    when={"feed_forward_proj": (*PLAIN, None)},  # the files of version 1.0 do not have the field
    task_type="seq2seq",
    model="T5ForConditionalGeneration",
    config_class="T5Config",
    tokenizer="T5Tokenizer",
    fields=FIELDS,
    aliases={
        "hidden_size": "d_model",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "head_dim": "d_kv",
    },
    fixed={"is_encoder_decoder": True, "is_decoder": False},
    stacks={
        "encoder": _stack("encoder", {"self": "layer.0.SelfAttention"}),
        "decoder": _stack(
            "decoder", {"self": "layer.0.SelfAttention", "cross": "layer.1.EncDecAttention"}
        ),
    },
    attention={
        "attn.heads": "{a}:in -> {a}:heads",
        "attn.context": "{a}:in -> {a}.o:in",
        "attn.output": "{a}:in -> {b}.dropout:out",
        "attn.projection": "{a}.o:in -> {a}.o:out",
        "attn.query": "{a}.q:in -> {a}.q:out",
        "attn.key": "{a}.k:in -> {a}.k:out",
        "attn.value": "{a}.v:in -> {a}.v:out",
    },
    ffn={
        "ffn": "{f}.DenseReluDense.wi:in -> {f}.dropout:out",
        "ffn.normed": "{f}.DenseReluDense.wi:in -> {f}.dropout:out",
        "ffn.up": "{f}.DenseReluDense.wi:in -> {f}.DenseReluDense.wi:out",
        "ffn.down": "{f}.DenseReluDense.wo:in -> {f}.DenseReluDense.wo:out",
        "ffn.hidden": "{f}.DenseReluDense.wo:in -> {f}.DenseReluDense.wo:in",
        "ffn.block": ":same -> {f}:out",
    },
    residual={"attn": "{b}.layer_norm:in", "ffn": "{f}.layer_norm:in"},
    query="q",
    prompt=Prompt(
        write="encoder.embed_tokens:out",
        stack="encoder",
        masks=(("encoder", "attention_mask"), ("decoder", "encoder_attention_mask")),
    ),
    hidden_dropout="dropout_rate",
    attention_dropout="dropout_rate",
    activation="{f}.DenseReluDense.act",
    relative_bias={
        "encoder": "encoder.block.0.layer.0.SelfAttention",
        "decoder": "decoder.block.0.layer.0.SelfAttention",
    },
    max_positions=None,
    decoder_start="config",
)
T5_GATED = replace(
    T5,
    name="t5_gated",
    model_type="t5",
    when={"feed_forward_proj": GATED},
    fields={**FIELDS, "feed_forward_proj": one_of(*GATED)},
    ffn={
        "ffn": "{f}.DenseReluDense:in -> {f}.dropout:out",
        "ffn.normed": "{f}.DenseReluDense:in -> {f}.dropout:out",
        "ffn.up": "{f}.DenseReluDense.wi_1:in -> {f}.DenseReluDense.wi_1:out",
        "ffn.gate": "{f}.DenseReluDense.wi_0:in -> {f}.DenseReluDense.wi_0:out",
        "ffn.down": "{f}.DenseReluDense.wo:in -> {f}.DenseReluDense.wo:out",
        "ffn.hidden": "{f}.DenseReluDense.wo:in -> {f}.DenseReluDense.wo:in",
        "ffn.block": ":same -> {f}:out",
    },
    activation=None,
)
