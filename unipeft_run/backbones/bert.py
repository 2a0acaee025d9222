"""BERT: a post-norm encoder with the modules of RoBERTa and positions from 0.

`attn.output` is after the dropout, where `adapters` reads it. A prompt is prepended after the
embeddings' LayerNorm. The pooler runs before the prompt is removed, so a classifier of whole texts
reads the prompt's first vector.
"""

from dataclasses import replace

from unipeft_run.backbones.family import Prompt, Stack
from unipeft_run.backbones.roberta import ROBERTA

BERT = replace(
    ROBERTA,
    name="bert",
    model="BertForSequenceClassification",
    config_class="BertConfig",
    tokenizer="BertTokenizer",
    fields={k: v for k, v in ROBERTA.fields.items() if k not in ("bos_token_id", "eos_token_id")},
    stacks={
        "encoder": Stack(
            path="bert.encoder.layer", role="encoder", attentions={"self": "attention"}
        )
    },
    attention={
        **ROBERTA.attention,
        "attn.output": "{a}.self:in -> {a}.output.dropout:out",
    },
    prompt=Prompt(write="bert.embeddings:out", masks=(("bert", "attention_mask"),), trim="bert"),
    positions_from=None,
)
