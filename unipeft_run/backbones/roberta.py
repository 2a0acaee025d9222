"""RoBERTa: a post-norm encoder whose dropouts are modules."""

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
    "max_position_embeddings": ROWS,
    "type_vocab_size": ROWS,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": WIDTH,
    "hidden_act": ACTIVATION,
    "hidden_dropout_prob": PROBABILITY,
    "attention_probs_dropout_prob": PROBABILITY,
    "classifier_dropout": PROBABILITY.or_null(),
    "initializer_range": DEVIATION,
    "layer_norm_eps": EPSILON,
    "use_cache": FLAG,
    "pad_token_id": TOKEN,
    "bos_token_id": TOKEN,
    "eos_token_id": TOKEN,
}

ROBERTA = Family(
    name="roberta",
    task_type="classification",
    model="RobertaForSequenceClassification",
    config_class="RobertaConfig",
    tokenizer="RobertaTokenizer",
    fields=FIELDS,
    fixed={
        "is_decoder": False,
        "add_cross_attention": False,
        "position_embedding_type": "absolute",
    },
    stacks={
        "encoder": Stack(
            path="roberta.encoder.layer", role="encoder", attentions={"self": "attention"}
        )
    },
    attention={
        "attn.heads": "{a}.self:in -> {a}.self:heads",
        "attn.context": "{a}.self:in -> {a}.output.dense:in",
        "attn.output": "{a}.self:in -> {a}.output.dense:out",
        "attn.projection": "{a}.output.dense:in -> {a}.output.dense:out",
        "attn.query": "{a}.self.query:in -> {a}.self.query:out",
        "attn.key": "{a}.self.key:in -> {a}.self.key:out",
        "attn.value": "{a}.self.value:in -> {a}.self.value:out",
    },
    ffn={
        "ffn": "intermediate.dense:in -> output.dropout:out",
        "ffn.normed": "intermediate.dense:in -> output.dropout:out",
        "ffn.up": "intermediate.dense:in -> intermediate.dense:out",
        "ffn.hidden": "output.dense:in -> output.dense:in",
        "ffn.down": "output.dense:in -> output.dense:out",
        "ffn.block": "output.LayerNorm:of -> output.LayerNorm:in",
    },
    residual={"attn": "{a}.self:in", "ffn": "intermediate.dense:in"},
    query="query",
    prompt=Prompt(
        write="roberta.embeddings.LayerNorm:in",
        masks=(("roberta", "attention_mask"),),
        trim="roberta",
    ),
    hidden_dropout="hidden_dropout_prob",
    attention_dropout="attention_probs_dropout_prob",
    activation="intermediate.intermediate_act_fn",
    positions_from="pad_token_id",
    head=("classifier.*",),
)
