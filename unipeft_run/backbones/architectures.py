"""The sizes of the paper's backbones, so that parameters are counted without hub or weights."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.backbones.family import Family
from unipeft_run.config.schema import BackboneConfig

Sizes = Mapping[str, Any]

_BART: Sizes = {
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
_BASE: Sizes = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
_LARGE: Sizes = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_ENCODER: Sizes = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
_ROBERTA: Sizes = {
    "model_type": "roberta",
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    **_ENCODER,
}
_BERT: Sizes = {
    "model_type": "bert",
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    **_ENCODER,
}
_LLAMA: Sizes = {
    "model_type": "llama",
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
}
_LLAMA_7B: Sizes = {
    **_LLAMA,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
}
_T5: Sizes = {
    "model_type": "t5",
    "vocab_size": 32128,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_decoder_layers": 12,
    "num_attention_heads": 12,
    "head_dim": 64,
    "d_ff": 3072,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
    "decoder_start_token_id": 0,
}
_CLIP_TEXT: Sizes = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "max_position_embeddings": 77,
    "attention_dropout": 0.0,
}
_CLIP_VISION: Sizes = {
    **_BASE,
    "image_size": 224,
    "patch_size": 32,
    "num_channels": 3,
    "attention_dropout": 0.0,
}
_CLIP: Sizes = {
    "model_type": "clip",
    "projection_dim": 512,
    "text_config": _CLIP_TEXT,
    "vision_config": _CLIP_VISION,
}
# hub id -> the sizes in its config.json, by transformers' common names
ARCHITECTURES: Mapping[str, Sizes] = {
    "facebook/bart-large": {**_BART, "model_type": "bart", "vocab_size": 50265},
    "facebook/mbart-large-cc25": {**_BART, "model_type": "mbart", "vocab_size": 250027},
    "roberta-base": {**_ROBERTA, **_BASE},
    "roberta-large": {**_ROBERTA, **_LARGE},
    "bert-base-uncased": {**_BERT, **_BASE},
    "bert-large-uncased": {**_BERT, **_LARGE},
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 50257,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "n_inner": None,
        "max_position_embeddings": 1024,
        "activation_function": "gelu_new",
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "tie_word_embeddings": True,
    },
    "t5-base": _T5,
    "google/t5-v1_1-base": {
        **_T5,
        "d_ff": 2048,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
    "huggyllama/llama-7b": _LLAMA_7B,
    "huggyllama/llama-13b": {
        **_LLAMA,
        "hidden_size": 5120,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "intermediate_size": 13824,
    },
    "meta-llama/Llama-2-7b-hf": {
        **_LLAMA_7B,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
    },
    "google/vit-base-patch16-224-in21k": {
        **_BASE,
        "model_type": "vit",
        "image_size": 224,
        "patch_size": 16,
        "num_channels": 3,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "openai/clip-vit-base-patch32": _CLIP,
    "openai/clip-vit-base-patch16": {**_CLIP, "vision_config": {**_CLIP_VISION, "patch_size": 16}},
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
        return _as_config({**known, **labels}, FAMILIES[backbone.family])
    # slower: imports transformers, which fills in the defaults
    from unipeft_run.backbones.locate import locate
    from unipeft_run.backbones.model_config import build_config, check_fields, flatten, read_config
    from unipeft_run.backbones.rope import override

    if not known:
        source = locate(name=backbone.name, hub=backbone.hub, path=backbone.path)
        return read_config(source, backbone.family, backbone.config, num_labels)
    family = FAMILIES[backbone.family]
    flat = flatten(known, family)
    sizes = {family.aliases.get(key, key): value for key, value in flat.items()}
    del sizes["model_type"]
    fields = override(sizes, check_fields(backbone.config, family))
    return build_config(family, fields, backbone.hub or backbone.name, num_labels)


def _as_config(sizes: Mapping[str, Any], family: Family) -> SimpleNamespace:
    """Return sizes as attributes, also under the family's own names, as transformers does."""
    own = {name: sizes[common] for common, name in family.aliases.items() if common in sizes}
    parts = {key: SimpleNamespace(**v) for key, v in sizes.items() if isinstance(v, Mapping)}
    return SimpleNamespace(**{**own, **sizes, **parts})
