"""Llama and its relatives: pre-norm decoders with RMSNorm, rotary positions and a gated FFN.

A prefix has as many heads as the keys (grouped-query attention) and no rotary positions.
"""

from dataclasses import replace

from unipeft_run.backbones.family import Family, Prompt, Stack
from unipeft_run.backbones.fields import (
    ACTIVATION,
    BASE,
    DEVIATION,
    EPSILON,
    FLAG,
    HEADS,
    LAYERS,
    PROBABILITY,
    ROPE,
    ROWS,
    TOKEN,
    TOKENS,
    WIDTH,
)

FIELDS = {
    "vocab_size": ROWS,
    "max_position_embeddings": ROWS,
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS.or_null(),
    "head_dim": WIDTH.or_null(),
    "hidden_act": ACTIVATION,
    "attention_bias": FLAG,
    "attention_dropout": PROBABILITY,
    "mlp_bias": FLAG,
    "rms_norm_eps": EPSILON,
    "rope_theta": BASE,
    "rope_parameters": ROPE,
    "rope_scaling": ROPE.or_null(),
    "tie_word_embeddings": FLAG,
    "initializer_range": DEVIATION,
    "use_cache": FLAG,
    "pad_token_id": TOKEN.or_null(),
    "bos_token_id": TOKEN.or_null(),
    "eos_token_id": TOKENS.or_null(),
}

LLAMA = Family(
    name="llama",
    task_type="causal",
    model="LlamaForCausalLM",
    config_class="LlamaConfig",
    tokenizer="LlamaTokenizer",
    tokenizer_names=("GPT2Tokenizer", "RobertaTokenizer"),
    fields=FIELDS,
    fixed={"pretraining_tp": 1},
    stacks={
        "decoder": Stack(
            path="model.layers",
            role="decoder",
            attentions={"self": "self_attn"},
            ffn="mlp",
            kv_heads="num_key_value_heads",
            head_width="head_dim",
        )
    },
    attention={
        "attn.heads": "{a}:in -> {a}:heads",
        "attn.context": "{a}:in -> {a}.o_proj:in",
        "attn.output": "{a}:in -> {a}.o_proj:out",
        "attn.projection": "{a}.o_proj:in -> {a}.o_proj:out",
        "attn.query": "{a}.q_proj:in -> {a}.q_proj:out",
        "attn.key": "{a}.k_proj:in -> {a}.k_proj:out",
        "attn.value": "{a}.v_proj:in -> {a}.v_proj:out",
    },
    ffn={
        "ffn": "{f}:in -> {f}:out",
        "ffn.normed": "{f}:in -> {f}:out",
        "ffn.up": "{f}.up_proj:in -> {f}.up_proj:out",
        "ffn.gate": "{f}.gate_proj:in -> {f}.gate_proj:out",
        "ffn.down": "{f}.down_proj:in -> {f}.down_proj:out",
        "ffn.up_input": "{f}.up_proj:in -> {f}.up_proj:in",
        "ffn.gate_input": "{f}.gate_proj:in -> {f}.gate_proj:in",
        "ffn.hidden": "{f}.down_proj:in -> {f}.down_proj:in",
        "ffn.block": ":same -> :out",
    },
    residual={"attn": "input_layernorm:in", "ffn": "post_attention_layernorm:in"},
    query=None,
    prompt=Prompt(
        write="model.embed_tokens:out",
        stack="model",
        masks=(("model", "attention_mask"),),
        cached=True,
    ),
    hidden_dropout=None,
    attention_dropout="attention_dropout",
    activation=None,
    positions="model",
)


MISTRAL = replace(
    LLAMA,
    name="mistral",
    model="MistralForCausalLM",
    config_class="MistralConfig",
    fixed={},
    fields={
        **{k: v for k, v in FIELDS.items() if k not in ("attention_bias", "mlp_bias")},
        "sliding_window": WIDTH.or_null(),
    },
)
QWEN2 = replace(
    LLAMA,
    name="qwen2",
    model="Qwen2ForCausalLM",
    config_class="Qwen2Config",
    tokenizer="Qwen2Tokenizer",
    fixed={"use_sliding_window": False},
    fields={k: v for k, v in FIELDS.items() if k not in ("attention_bias", "mlp_bias", "head_dim")},
)
QWEN3 = replace(
    LLAMA,
    name="qwen3",
    model="Qwen3ForCausalLM",
    config_class="Qwen3Config",
    tokenizer="Qwen2Tokenizer",
    fixed={"use_sliding_window": False},
    fields={k: v for k, v in FIELDS.items() if k != "mlp_bias"},
)
GEMMA = replace(
    LLAMA,
    name="gemma",
    model="GemmaForCausalLM",
    config_class="GemmaConfig",
    tokenizer="GemmaTokenizer",
    fixed={},
    fields={k: v for k, v in FIELDS.items() if k != "mlp_bias"},
)
