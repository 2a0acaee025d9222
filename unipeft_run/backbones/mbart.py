"""mBART: BART with the norms first.

The parallel FFN adapter reads the residual stream, before the LayerNorm that fc1 reads behind, and
the multi-head adapter the plain scaled query: so the official code (reference 3.2 and 5.2).
"""

from dataclasses import replace

from unipeft_run.backbones.bart import BART

MBART = replace(
    BART,
    family="mbart",
    model="MBartForConditionalGeneration",
    ffn={
        **BART.ffn,
        "ffn": "final_layer_norm:in -> fc2:dropped",
        "ffn.block": ":same -> :out",
    },
    reference_query={"softmax": "scaled", "relu": "scaled"},
    decoder_start="rotate",
)
