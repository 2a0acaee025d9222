"""The sizes of the paper's backbones, so that parameters are counted without hub or weights."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.config.schema import BackboneConfig

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
# hub id -> the sizes in its config.json, by transformers' common names
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


def architecture(
    backbone: BackboneConfig, num_labels: int | None, *, complete: bool = False
) -> Any:
    """Return the configuration of a backbone: from the sizes above, else from its config.json.

    `num_labels` sizes a classifier; `complete`: return a configuration that transformers can build
    the model of. Raises UserError if there is no configuration, if it belongs to
    another family, or if a field of `backbone.config` is not allowed.
    """
    known = ARCHITECTURES.get(backbone.hub or "") if backbone.path is None else None
    if known and not backbone.config and not complete:
        labels = {"num_labels": num_labels} if num_labels else {}
        return SimpleNamespace(**known, **labels)
    # slower: imports transformers, which fills in the defaults
    from unipeft_run.backbones.locate import locate
    from unipeft_run.backbones.model_config import build_config, check_fields, read_config

    if not known:
        source = locate(name=backbone.name, hub=backbone.hub, path=backbone.path)
        return read_config(source, backbone.family, backbone.config, num_labels)
    family = FAMILIES[backbone.family]
    sizes = {family.aliases.get(key, key): value for key, value in known.items()}
    del sizes["model_type"]
    changes = check_fields(backbone.config, family)
    return build_config(family, {**sizes, **changes}, backbone.hub or backbone.name, num_labels)
