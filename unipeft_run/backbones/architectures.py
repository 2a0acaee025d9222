"""The paper's backbones as data: counting their parameters needs no hub and no weights."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from unipeft_run.errors import UserError

_LARGE: Mapping[str, Any] = {
    "hidden_size": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "max_position_embeddings": 1024,
    "activation_function": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.1,
}
# id on the hub -> what its config.json says of sizes, by transformers' common names
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "facebook/bart-large": {**_LARGE, "model_type": "bart", "vocab_size": 50265},
    "facebook/mbart-large-cc25": {**_LARGE, "model_type": "mbart", "vocab_size": 250027},
    "roberta-base": {
        "model_type": "roberta",
        "vocab_size": 50265,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    },
}


def architecture(backbone: Mapping[str, Any], num_labels: int | None) -> Any:
    """The configuration of a backbone: from the data above, else from its config.json.

    `backbone` is that section of a resolved configuration; `num_labels` sizes a classifier.
    Raises UserError where there is none, or one of another family.
    """
    changes = {**backbone["config"], **({"num_labels": num_labels} if num_labels else {})}
    if backbone["path"] is None and backbone["hub"] in ARCHITECTURES:
        return SimpleNamespace(**{**ARCHITECTURES[backbone["hub"]], **changes})
    from transformers import AutoConfig  # slower, and knows every default

    from unipeft_run.backbones.locate import locate

    source = locate(**{key: backbone[key] for key in ("name", "hub", "path")})
    config = AutoConfig.from_pretrained(source, **changes)
    if config.model_type != backbone["family"]:
        raise UserError(f"{source} holds a {config.model_type}, not a {backbone['family']}")
    return config
