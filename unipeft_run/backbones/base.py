"""What a backbone's table holds."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """How the input is lengthened.

    Args:
        write: tap of the embeddings, before their LayerNorm.
        masks: (module, keyword) of each padding mask that must see the prompt.
        trim: module whose result gives its first positions back, or None.
    """

    write: str
    masks: tuple[tuple[str, str], ...]
    trim: str | None = None


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A family's taps, `x -> h`, below a layer; `{a}` is an attention module of it.

    Args:
        family: transformers' `model_type`.
        model: the model class, by its name in transformers.
        stacks: name -> path of the layers, and attention type -> module below a layer.
        attention: representation -> taps, once for each attention module.
        ffn: representation -> taps, once for each layer.
        query: path of the query projection below the module that calls the attention function.
        prompt: where the input is lengthened.
        hidden_dropout, attention_dropout, num_heads, ffn_width: names of config fields.
        activation: path of the feed-forward's activation below a layer, between `ffn.up` and
            `ffn.down`.
        residual_dropout: modules of a layer after whose result the layer drops out by a function,
            so that a change after the dropout needs the dropout in a module (taps `dropped`).
        reference_query: what the official code feeds a memory, by its activation.
        head: patterns of the parameters of a classifier of its own, which starts at random.
        positions_from: the config field after whose value positions are counted, or None.
        decoder_start: `config` (BART: a fixed token) or `rotate` (mBART: the target's language).
    """

    family: str
    model: str
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
