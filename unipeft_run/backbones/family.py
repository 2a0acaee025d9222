"""`Family`: the table that describes one family of backbones, and what its columns mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unipeft_run.backbones.fields import Rule


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The modules of a family that are affected by prepended prompt vectors.

    Args:
        write: tap of the embeddings, before their LayerNorm.
        masks: (module, keyword) of each padding mask that must cover the prompt.
        trim: module from whose output the prompt positions are removed again, or None.
    """

    write: str
    masks: tuple[tuple[str, str], ...]
    trim: str | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of backbones: its transformers classes and its taps.

    A tap pair `x -> h` is relative to a layer; `{a}` is an attention module of that layer.

    Args:
        name: transformers' `model_type`.
        model, config_class, tokenizer: class names in transformers.
        tokenizer_names: other names that `tokenizer_config.json` may use for `tokenizer`.
        fields: configuration fields that may be set, each with its rule.
        aliases: transformers' common field names -> this family's names.
        fixed: values that config.json must not contradict.
        stacks: name -> path of the layers, and attention type -> module below a layer.
        attention: representation -> taps, one pair per attention module.
        ffn: representation -> taps, one pair per layer.
        query: path of the query projection below the module that calls the attention function.
        prompt: the modules affected by prepended prompt vectors.
        hidden_dropout, attention_dropout, num_heads, ffn_width: names of configuration fields.
        activation: path of the feed-forward activation below a layer, between `ffn.up` and
            `ffn.down`.
        residual_dropout: modules to whose output the layer applies functional dropout. A tap
            `dropped` on one of them needs that dropout as a module.
        reference_query: the query of a memory in the official code, by the memory's activation.
        head: patterns of the classifier's parameters, which are randomly initialised.
        positions_from: the configuration field whose value precedes the first position, or None.
        decoder_start: `config` (BART: a fixed token) or `rotate` (mBART: the target's language).
    """

    name: str
    model: str
    config_class: str
    tokenizer: str
    tokenizer_names: tuple[str, ...] = ()
    fields: Mapping[str, Rule]
    aliases: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    stacks: Mapping[str, tuple[str, Mapping[str, str]]]
    attention: Mapping[str, str]
    ffn: Mapping[str, str]
    query: str
    prompt: Prompt
    hidden_dropout: str
    attention_dropout: str
    num_heads: Mapping[str, str]
    ffn_width: Mapping[str, str]
    reference_query: Mapping[str, str]
    activation: str
    residual_dropout: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    positions_from: str | None = None
    decoder_start: str | None = None
