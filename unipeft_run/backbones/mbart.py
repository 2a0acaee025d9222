"""mBART: BART with pre-norm layers.

As in the official code (docs/fidelity.md, quirks 2 and 5), the parallel FFN adapter reads the
residual stream before the LayerNorm that precedes fc1, and the multi-head adapter reads the plain
scaled query.
"""

from dataclasses import replace

from unipeft_run.backbones.bart import BART
from unipeft_run.backbones.fields import TOKEN

MBART = replace(
    BART,
    name="mbart",
    model="MBartForConditionalGeneration",
    config_class="MBartConfig",
    tokenizer="MBartTokenizer",
    tokenizer_names=(),
    fields={**BART.fields, "decoder_start_token_id": TOKEN.or_null()},
    ffn={
        **BART.ffn,
        "ffn": "final_layer_norm:in -> fc2:dropped",
        "ffn.block": ":same -> :out",
    },
    residual={"attn": "{a}_layer_norm:in", "ffn": "final_layer_norm:in"},
    reference_query={"softmax": "scaled", "relu": "scaled"},
    decoder_start="rotate",
)
