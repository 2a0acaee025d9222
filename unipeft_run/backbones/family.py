"""`Family`: the table that describes one family of backbones, and what its columns mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from unipeft_run.backbones.fields import Rule

TaskType = Literal["seq2seq", "classification", "causal", "image_classification", "retrieval"]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The modules of a family that are affected by prepended prompt vectors.

    Args:
        write: tap of the embeddings that the prompt precedes.
        stack: module whose input embeddings the prompt precedes, if that module makes them from
            tokens; None: the prompt is written at `write`.
        masks: (module, keyword) of each padding mask that must cover the prompt.
        trim: module from whose output the prompt positions are removed again, or None.
        untrimmed: classes without that: their head reads the first vector of the prompt.
        cached: True if `stack` is a decoder with a cache. Then only its first call gets the prompt,
            and only that output is trimmed.
    """

    write: str
    stack: str | None = None
    masks: tuple[tuple[str, str], ...] = ()
    trim: str | None = None
    untrimmed: tuple[str, ...] = ()
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One stack of layers.

    Args:
        path: path of the layers.
        role: encoder or decoder; a representation selects stacks by name or role.
        attentions: attention type -> module below a layer, `{a}` in the taps.
        ffn: module of the FFN below a layer, `{f}` in the taps; may be empty.
        config: the part of the configuration that describes the stack; empty: all of it.
        heads, kv_heads, head_width, ffn_width: names of configuration fields. Without `kv_heads`
            there are as many key-value heads as heads; without `head_width` the heads divide the
            hidden size; a null `ffn_width` is four times the hidden size.
    """

    path: str
    role: Literal["encoder", "decoder"]
    attentions: Mapping[str, str]
    ffn: str = ""
    config: str = ""
    heads: str = "num_attention_heads"
    kv_heads: str | None = None
    head_width: str | None = None
    ffn_width: str = "intermediate_size"

    def part(self, config: Any) -> Any:
        """Return the part of a transformers configuration that describes the stack."""
        return getattr(config, self.config) if self.config else config

    def read(self, config: Any) -> "StackSizes":
        """Read the sizes of the stack from a transformers configuration."""
        part = self.part(config)
        heads = getattr(part, self.heads)
        kv_heads = getattr(part, self.kv_heads, None) if self.kv_heads else None
        head_width = getattr(part, self.head_width, None) if self.head_width else None
        return StackSizes(
            width=part.hidden_size,
            heads=heads,
            kv_heads=kv_heads or heads,
            head_width=head_width or part.hidden_size // heads,
            ffn_width=getattr(part, self.ffn_width) or 4 * part.hidden_size,
        )


@dataclass(frozen=True, kw_only=True)
class StackSizes:
    """The sizes of a stack: hidden size, heads, key-value heads, widths of a head and the FFN."""

    width: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of backbones: its transformers classes and its taps.

    A tap pair `x -> h` is relative to a layer; `{a}` is an attention module of that layer, `{b}`
    the module around it and `{f}` the FFN.

    Args:
        name: the family's name; transformers' `model_type` unless that is given.
        model_type: transformers' `model_type`, if several families share it.
        when: values of configuration fields that tell those families apart; None: not in the file.
        task_type: the type of task that `model` can do.
        model, config_class, tokenizer: class names in transformers.
        tokenizer_names: other tokenizer classes that a folder of this family may name.
        fields: configuration fields that may be set, each with its rule; a dotted name is a field
            of a part of the configuration.
        aliases: transformers' common field names -> this family's names.
        fixed: values that config.json must not contradict.
        stacks: the stacks of layers, by name.
        attention: representation -> taps, one pair per attention module.
        ffn: representation -> taps, one pair per layer.
        residual: slot -> tap of the residual stream before the sub-layer and its normalisation.
        query: path of the query projection below the module that calls the attention function;
            None if queries cannot be projected again (merged weights, rotary positions).
        prompt: the modules affected by prepended prompt vectors; None: prompts are not supported.
        hidden_dropout, attention_dropout: names of configuration fields; None: no such dropout.
        activation: path of the feed-forward activation below a layer, between `ffn.up` and
            `ffn.down`; None if the FFN is gated.
        residual_dropout: modules to whose output the layer applies functional dropout. A tap
            `dropped` on one of them needs that dropout as a module.
        reference_query: the query of a memory in the official code, by the memory's activation.
        relative_bias: stack -> path of the attention module that holds the relative position bias
            of all layers.
        positions: module that takes `position_ids`, which a prefix may shift; None: there is none.
        learned_positions: True if `positions` looks them up in a table, so that a prompt and a
            prefix that shifts them leave fewer for the text.
        head: patterns of the classifier's parameters, which are randomly initialised.
        max_positions: the configuration field with the longest input; None: unlimited.
        positions_from: the configuration field whose value precedes the first position, or None.
        decoder_start: `config` (BART: a fixed token) or `rotate` (mBART: the target's language).
    """

    name: str
    model_type: str = ""
    when: Mapping[str, Any] = field(default_factory=dict)
    task_type: TaskType
    model: str
    config_class: str
    tokenizer: str
    tokenizer_names: tuple[str, ...] = ()
    fields: Mapping[str, Rule]
    aliases: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    stacks: Mapping[str, Stack]
    attention: Mapping[str, str]
    ffn: Mapping[str, str]
    residual: Mapping[str, str]
    query: str | None
    prompt: Prompt | None
    hidden_dropout: str | None
    attention_dropout: str | None
    reference_query: Mapping[str, str] = field(
        default_factory=lambda: {"softmax": "scaled", "relu": "scaled"}
    )
    activation: str | None
    relative_bias: Mapping[str, str] = field(default_factory=dict)
    residual_dropout: tuple[str, ...] = ()
    positions: str | None = None
    learned_positions: bool = False
    head: tuple[str, ...] = ()
    max_positions: str | None = "max_position_embeddings"
    positions_from: str | None = None
    decoder_start: str | None = None

    def fits(self, config: Any) -> bool:
        """Return whether a transformers configuration, or config.json, belongs to this family."""
        fields = config if isinstance(config, Mapping) else vars(config)
        model_type = fields.get("model_type", getattr(config, "model_type", None))
        if model_type != (self.model_type or self.name):
            return False
        return all(fields.get(key) in values for key, values in self.when.items())

    def taps(self, representation: str) -> str | None:
        """Return the tap pair of a representation; None if the family does not have it."""
        return self.attention.get(representation) or self.ffn.get(representation)
