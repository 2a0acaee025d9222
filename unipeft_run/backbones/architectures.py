"""The paper's backbones as data: counting their parameters needs no hub and no weights."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from unipeft_run.config.messages import shown, unknown_key
from unipeft_run.config.schema import BackboneConfig
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


def architecture(backbone: BackboneConfig, num_labels: int | None) -> Any:
    """The configuration of a backbone: from the data above, else from its config.json.

    `backbone` is that section of a resolved configuration; `num_labels` sizes a classifier.
    Raises UserError where there is none, or one of another family, or one without such a field.
    """
    labels = {"num_labels": num_labels} if num_labels else {}
    known = ARCHITECTURES.get(backbone.hub) if backbone.path is None else None
    if known and not backbone.config:
        return SimpleNamespace(**known, **labels)
    from transformers import AutoConfig  # slower, and knows every default and every name

    from unipeft_run.backbones.locate import locate

    changes, family = {**backbone.config, **labels}, backbone.family
    if not known:
        source = locate(name=backbone.name, hub=backbone.hub, path=backbone.path)
        return read_config(source, family, changes)
    with in_a_sentence(backbone.hub):
        config = AutoConfig.for_model(family)
        _refuse_unknown([key for key in changes if not hasattr(config, key)], config)
        for key, value in {**known, **changes}.items():
            if key != "model_type":
                setattr(config, key, value)
    return config


def read_config(source: str, family: str, changes: Mapping[str, Any]) -> Any:
    """The configuration in `source`, a folder or hub id, with `changes` of its fields.

    Raises UserError for a source that is damaged or of another family, and for a field it lacks.
    """
    from transformers import AutoConfig

    with in_a_sentence(source):
        config, unused = AutoConfig.from_pretrained(source, return_unused_kwargs=True, **changes)
    if config.model_type != family:
        raise UserError(f"{source} holds a {config.model_type}, not a {family}")
    _refuse_unknown(unused, config)
    return config


def _refuse_unknown(keys: Iterable[str], config: Any) -> None:
    for key in keys:
        known = [f"backbone.config.{name}" for name in config.to_dict()]
        raise UserError(unknown_key(f"backbone.config.{key}", known))


@contextmanager
def in_a_sentence(source: str) -> Iterator[None]:
    """Whatever a library raises for a `source` that is not whole becomes a UserError."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # the libraries leave open of which kind
        reason = " ".join((str(error) or type(error).__name__).split())
        raise UserError(f"{source} cannot be loaded: {shown(reason, 160)}") from error
