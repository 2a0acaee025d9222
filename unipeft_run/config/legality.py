"""The design space: which values of the four axes make sense together, and why others do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.config.messages import Illegal, unknown_choice
from unipeft_run.errors import UserError

SITES = {
    "attn": (
        "attn.heads",
        "attn.context",
        "attn.output",
        "attn.query",
        "attn.key",
        "attn.value",
    ),
    "ffn": ("ffn", "ffn.normed", "ffn.up", "ffn.down", "ffn.block"),
    "input": ("embedding",),
}
ONLY_PARALLEL = {
    "attn.heads": "the change is computed from the queries, not from what the heads put out",
    "attn.context": "a sequential adapter reads what attention writes: attn_output",
    "attn.query": "the change belongs to a weight matrix, which reads its own input",
    "attn.key": "the change belongs to a weight matrix, which reads its own input",
    "attn.value": "the change belongs to a weight matrix, which reads its own input",
    "ffn.up": "the change belongs to a weight matrix, which reads its own input",
    "ffn.down": "the change belongs to a weight matrix, which reads its own input",
    "embedding": "learned vectors read nothing",
}

STACKS, ATTENTIONS = ("encoder", "decoder"), ("self", "cross")


def check_slot(slot: str, content: dict[str, Any]) -> None:
    """Raises `Illegal` with the reason if the four axes of the slot do not go together."""
    where = content["representation"]
    for key, allowed in (("sites", SITES[slot]), ("stacks", STACKS), ("attentions", ATTENTIONS)):
        _check_names(f"{slot}.representation.{key}", where[key], allowed, slot)
    _check_layers(slot, where["layers"])
    _check_apart(slot, where["sites"])
    for site in where["sites"]:
        for sentence in objections(site, content):
            raise Illegal(f"slot {slot}: {sentence}")


def objections(site: str, content: dict[str, Any]) -> Iterator[str]:
    """The reasons why form, insertion and composition of `content` cannot stand at `site`.

    A form or composition of somebody else's may stand wherever its insertion may.
    """
    form, composition = class_of(content["form"]), class_of(content["composition"])
    yield from _insertion_objections(site, content["insertion"])
    if form == "Memory" and site != "attn.heads":
        yield f"form memory needs the queries of each head; it stands at heads only, not at {site}"
    if form == "Bottleneck" and site == "attn.heads":
        yield "a bottleneck reads a whole hidden state, not a head; representation@attn=context"
    if form == "Bottleneck" and site == "embedding":
        yield "a bottleneck adds to hidden states; at the embedding only form vectors can stand"
    if (form == "Vectors") != (composition == "Prepend"):
        yield "form vectors and composition prepend need each other: vectors go before the input"
    if form == "Vectors" and site != "embedding":
        yield f"form vectors lengthens the input; it cannot stand at {site}, only at the embedding"
    if site == "attn.heads" and content["composition"].get("norm"):
        yield "composition.norm normalises a whole hidden state, not a head; leave it false"
    if composition == "Gated" and form != "Memory":
        yield (
            "composition gated needs the attention logits of form memory at the heads, "
            "there are none here; take composition add, scaled or learned_scale"
        )


def _insertion_objections(site: str, insertion: str) -> Iterator[str]:
    if insertion == "post_norm" and site != "ffn.block":
        yield (
            f"insertion post_norm reads a block's normalised sum; {site} has none, "
            "take representation@ffn=ffn_block"
        )
    elif site == "ffn.block" and insertion != "post_norm":
        yield "at ffn_block the normalised sum is what is read; take insertion@ffn=post_norm"
    elif insertion == "sequential" and site in ONLY_PARALLEL:
        yield f"insertion sequential cannot stand at {site} ({ONLY_PARALLEL[site]}); take parallel"


def is_ours(node: dict[str, Any]) -> bool:
    """Whether `node` builds a class of this package."""
    return str(node.get("_target_", "")).startswith("unipeft_run.")


def class_of(node: dict[str, Any]) -> str:
    """The name of a class of ours, else nothing."""
    return str(node["_target_"]).rpartition(".")[2] if is_ours(node) else ""


def _check_names(path: str, names: list[str], allowed: tuple[str, ...], slot: str) -> None:
    if not names:
        raise UserError(f"{path} is empty; choose from {', '.join(allowed)}")
    for name in names:
        other = next((s for s, sites in SITES.items() if name in sites and s != slot), None)
        if other is not None and path.endswith("sites"):
            raise Illegal(f"slot {slot} cannot hold {name}; that site belongs to slot {other}")
        if name not in allowed:
            raise UserError(unknown_choice(path, name, allowed))


def _check_apart(slot: str, sites: list[str]) -> None:
    """A module holds one delta of a slot, whichever side of it the delta writes at."""
    if twice := next((site for site in sites if sites.count(site) > 1), None):
        raise UserError(f"{slot}.representation.sites names {twice} twice")
    for table in FAMILIES.values():
        taken: dict[str, str] = {}
        for site in sites:
            taps = {**table.attention, **table.ffn}.get(site, "")
            place = taps.rpartition(" -> ")[2].partition(":")[0]
            if taps and (other := taken.setdefault(place, site)) != site:
                raise Illegal(
                    f"slot {slot}: {other} and {site} write at one place; name one of them"
                )


def _check_layers(slot: str, layers: Any) -> None:
    numbers = isinstance(layers, list) and layers and all(type(n) is int and n >= 0 for n in layers)
    if layers != "all" and not numbers:
        raise UserError(
            f"{slot}.representation.layers={layers} is neither all nor a list of numbers from 0"
        )
    if numbers and len(set(layers)) < len(layers):
        raise UserError(f"{slot}.representation.layers={layers} names a layer twice")
