"""GPT-2: a pre-norm decoder with learned positions; one matrix computes query, key and value."""

from unipeft_run.backbones.family import Family, Prompt, Stack
from unipeft_run.backbones.fields import (
    ACTIVATION,
    DEVIATION,
    EPSILON,
    FLAG,
    HEADS,
    LAYERS,
    PROBABILITY,
    ROWS,
    TOKEN,
    WIDTH,
)

FIELDS = {
    "vocab_size": ROWS,
    "n_positions": ROWS,
    "n_embd": WIDTH,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_inner": WIDTH.or_null(),
    "activation_function": ACTIVATION,
    "resid_pdrop": PROBABILITY,
    "embd_pdrop": PROBABILITY,
    "attn_pdrop": PROBABILITY,
    "layer_norm_epsilon": EPSILON,
    "initializer_range": DEVIATION,
    "scale_attn_weights": FLAG,
    "scale_attn_by_inverse_layer_idx": FLAG,
    "tie_word_embeddings": FLAG,
    "use_cache": FLAG,
    "pad_token_id": TOKEN.or_null(),
    "bos_token_id": TOKEN,
    "eos_token_id": TOKEN,
}

GPT2 = Family(
    name="gpt2",
    task_type="causal",
    model="GPT2LMHeadModel",
    config_class="GPT2Config",
    tokenizer="GPT2Tokenizer",
    fields=FIELDS,
    aliases={
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    fixed={"add_cross_attention": False, "reorder_and_upcast_attn": False},
    stacks={
        "decoder": Stack(
            path="transformer.h",
            role="decoder",
            attentions={"self": "attn"},
            ffn="mlp",
            ffn_width="n_inner",
        )
    },
    attention={
        "attn.heads": "{a}:in -> {a}:heads",
        "attn.context": "{a}:in -> {a}.c_proj:in",
        "attn.output": "{a}:in -> {a}.resid_dropout:out",
        "attn.projection": "{a}.c_proj:in -> {a}.c_proj:out",
        "attn.query": "{a}.c_attn:in -> {a}.c_attn:out:0/3",
        "attn.key": "{a}.c_attn:in -> {a}.c_attn:out:1/3",
        "attn.value": "{a}.c_attn:in -> {a}.c_attn:out:2/3",
    },
    ffn={
        "ffn": "{f}.c_fc:in -> {f}.dropout:out",
        "ffn.normed": "{f}.c_fc:in -> {f}.dropout:out",
        "ffn.up": "{f}.c_fc:in -> {f}.c_fc:out",
        "ffn.down": "{f}.c_proj:in -> {f}.c_proj:out",
        "ffn.hidden": "{f}.c_proj:in -> {f}.c_proj:in",
        "ffn.block": ":same -> :out",
    },
    residual={"attn": "ln_1:in", "ffn": "ln_2:in"},
    query=None,
    prompt=Prompt(
        write="transformer.wte:out",
        stack="transformer",
        masks=(("transformer", "attention_mask"),),
        cached=True,
    ),
    hidden_dropout="resid_pdrop",
    attention_dropout="attn_pdrop",
    activation="{f}.act",
    positions="transformer",
    learned_positions=True,
)
