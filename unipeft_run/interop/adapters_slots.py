"""The slots that are equivalent to the options of `adapters`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from unipeft_run.backbones.family import Family
from unipeft_run.backbones.site import Site
from unipeft_run.config.messages import unknown_choice
from unipeft_run.deltas.compositions import (
    Add,
    Composition,
    Gated,
    LearnedScale,
    Prepend,
    Rescale,
    Scaled,
)
from unipeft_run.deltas.forms.base import Form
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.factors import Factors
from unipeft_run.deltas.forms.hypercomplex import Hypercomplex
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.forms.vectors import Vectors
from unipeft_run.deltas.gates import GatedMemory, InputGate
from unipeft_run.deltas.slots import Slot
from unipeft_run.interop.adapters_options import BOTTLENECK, LORA, PREFIX, PROMPT
from unipeft_run.interop.rules import check_scaling

Options = Mapping[str, Any]
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "swish": "silu", "silu": "silu", "tanh": "tanh"}
ATTENTIONS = {"self": "mh_adapter", "cross": "cross_adapter"}  # type -> option of its adapter
MATRICES = {"q": "attn.query", "k": "attn.key", "v": "attn.value"}
# what `adapters` calls the intermediate and the output Linear of an FFN
FEED_FORWARD = {"intermediate_lora": "ffn.up", "output_lora": "ffn.down"}
SWAPPED = {"intermediate_lora": "ffn.down", "output_lora": "ffn.up"}
SWAPPING = ("llama", "mistral", "qwen2", "qwen3", "gemma")  # families where it swaps them


@dataclass(frozen=True)
class Part:
    """One change of a configuration.

    Args:
        name: its name in our modules; `attn` at the attention heads.
        slot: the equivalent slot.
        left_out: layers without it, numbered through all stacks.
        matrices: for LoRA, the adapted attention matrices, in the order q, k, v.
    """

    name: str
    slot: Slot
    left_out: tuple[int, ...] = ()
    matrices: tuple[str, ...] = ()


def build_parts(architecture: str, options: Options, table: Family) -> Iterator[Part]:
    """Yield the changes of one architecture. Raises ValueError for a value we cannot take."""
    yield from BUILDERS[architecture](options, table)


def _bottleneck(options: Options, table: Family) -> Iterator[Part]:
    left_out = tuple(options["leave_out"])
    attentions = [kind for kind, key in ATTENTIONS.items() if options[key] and _has(table, kind)]
    if attentions:
        if options["original_ln_before"] and not options["is_parallel"]:
            raise ValueError("original_ln_before is supported for the output adapter only")
        slot = _adapter(options, "attn.output", "sequential", attentions)
        yield Part("attention", slot, left_out)
    if options["output_adapter"]:
        block = options["original_ln_before"] and not options["is_parallel"]
        site, insertion = ("ffn.block", "post_norm") if block else ("ffn", "sequential")
        yield Part("ffn", _adapter(options, site, insertion), left_out)


def _has(table: Family, attention: str) -> bool:
    return any(attention in stack.attentions for stack in table.stacks.values())


def _adapter(options: Options, site: str, insertion: str, attentions: Sequence[str] = ()) -> Slot:
    return Slot(
        form=_adapter_form(options),
        insertion="residual" if options["is_parallel"] else insertion,
        representation={"sites": [site], "attentions": attentions},
        composition=_adapter_composition(options),
    )


def _adapter_form(options: Options) -> Callable[[Site], Form]:
    factor, word = options["reduction_factor"], str(options["non_linearity"]).lower()
    if word not in ACTIVATIONS:
        raise ValueError(unknown_choice("non_linearity", word, ACTIVATIONS))
    settings: dict[str, Any] = {"activation": ACTIVATIONS[word], "dropout": options["dropout"]}
    form: Callable[..., Form] = Bottleneck
    if options["phm_layer"]:
        form = Hypercomplex
        settings |= {
            "n": options["phm_dim"],
            "factor_rank": options["phm_rank"],
            "learn_rules": options["learn_phm"],
            "bias": options["phm_bias"],
        }

    def build(site: Site) -> Form:
        return form(site, rank=max(1, int(site.width_in // factor)), **settings)

    return build


def _adapter_composition(options: Options) -> Callable[[Site], Composition]:
    scaling = options["scaling"]
    check_scaling(scaling)
    if options["use_gating"]:
        if scaling != 1.0:
            raise ValueError(f"use_gating with scaling={scaling} is not supported: scaling=1.0")
        return InputGate
    if scaling == "learned":
        return LearnedScale
    return Add if scaling == 1.0 else partial(Scaled, scale=scaling)


def _prefix(options: Options, table: Family) -> Iterator[Part]:
    form = partial(
        Memory,
        length=options["prefix_length"],
        query="scaled",
        mlp_width=None if options["flat"] else options["bottleneck_size"],
        dropout=options["dropout"],
    )
    several = len(table.stacks) > 1 and "decoder" in table.stacks
    representation = {
        "sites": ["attn.heads"],
        "stacks": ["encoder", "decoder"]
        if options["encoder_prefix"] or not several
        else ["decoder"],
        "attentions": ["self", "cross"] if options["cross_prefix"] else ["self"],
    }
    composition = GatedMemory if options["use_gating"] else Gated
    slot = Slot(
        form=form, insertion="parallel", representation=representation, composition=composition
    )
    yield Part("attn", slot, tuple(options["leave_out"]))


def _lora(options: Options, table: Family) -> Iterator[Part]:
    unknown = [name for name in options["attn_matrices"] if name not in MATRICES]
    if unknown:
        raise ValueError(unknown_choice("attn_matrices", unknown[0], MATRICES))
    matrices = [name for name in MATRICES if name in options["attn_matrices"]]
    sites = [MATRICES[name] for name in matrices] if options["selfattn_lora"] else []
    ffn = SWAPPED if table.name in SWAPPING else FEED_FORWARD
    sites += [site for key, site in ffn.items() if options[key]]
    form, composition = _lora_form(options)
    slot = Slot(
        form=form,
        insertion="parallel",
        representation={"sites": sites},
        composition=composition,
    )
    yield Part("matrix", slot, tuple(options["leave_out"]), tuple(MATRICES[m] for m in matrices))


def _lora_form(options: Options) -> tuple[Callable[[Site], Form], Callable[[Site], Composition]]:
    if options["composition_mode"] == "scale":
        return _scale_form(options)
    form = partial(
        Bottleneck,
        rank=options["r"],
        activation="identity",
        bias=False,
        init="lora",
        dropout=0.0,
        input_dropout=options["dropout"],
    )
    if options["use_gating"]:
        return form, InputGate  # in place of alpha / r
    return form, partial(Scaled, scale=options["alpha"] / options["r"])


def _scale_form(options: Options) -> tuple[Callable[[Site], Form], Callable[[Site], Composition]]:
    if options["r"] != 1 or options["use_gating"]:
        raise ValueError("composition_mode=scale needs r=1 and no gating")
    for key, needed in (("alpha", 1), ("dropout", 0.0)):
        if options[key] != needed:
            raise ValueError(f"composition_mode=scale needs {key}={needed}, not {options[key]}")
    return Factors, Rescale


def _prompt(options: Options, table: Family) -> Iterator[Part]:
    if table.prompt is None or "encoder" not in table.stacks or len(table.stacks) > 1:
        raise ValueError(f"architecture prompt_tuning is not supported for {table.name}")
    if table.name == "roberta":  # ours precede its LayerNorm, theirs follow it
        raise ValueError("prompt tuning of adapters is not supported for roberta")
    slot = Slot(
        form=partial(Vectors, length=options["prompt_length"]),
        insertion="parallel",
        representation={"sites": ["embedding"]},
        composition=Prepend,
    )
    yield Part("input", slot)


BUILDERS: Mapping[str, Callable[[Options, Family], Iterator[Part]]] = {
    BOTTLENECK: _bottleneck,
    PREFIX: _prefix,
    LORA: _lora,
    PROMPT: _prompt,
}
