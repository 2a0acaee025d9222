"""Check which combinations of the four axes are legal, and say why others are not.

Forms and compositions declare what they need (see `config.declarations`). This module adds the
sites of each slot and the insertions that are legal at each site.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.config.declarations import Declaration, declaration_of
from unipeft_run.config.messages import Illegal, unknown_choice
from unipeft_run.config.schema import PartConfig, RepresentationConfig, SlotConfig
from unipeft_run.errors import UserError

SITES: Mapping[str, tuple[str, ...]] = {
    "attn": (
        "attn.heads",
        "attn.context",
        "attn.output",
        "attn.query",
        "attn.key",
        "attn.value",
        "attn.projection",
    ),
    "ffn": (
        "ffn",
        "ffn.normed",
        "ffn.up",
        "ffn.gate",
        "ffn.down",
        "ffn.up_input",
        "ffn.gate_input",
        "ffn.hidden",
        "ffn.block",
    ),
    "input": ("embedding",),
    "matrix": (
        "attn.query",
        "attn.key",
        "attn.value",
        "attn.projection",
        "ffn.up",
        "ffn.gate",
        "ffn.down",
    ),
}
_MATRIX = "the change belongs to a weight matrix, which reads its own input"
# site -> why a sequential insertion is illegal there
NOT_SEQUENTIAL: Mapping[str, str] = {
    "attn.heads": "the change is computed from the queries, not from the heads' output",
    "attn.context": "a sequential adapter reads the output of attention: attn_output",
    "attn.query": _MATRIX,
    "attn.key": _MATRIX,
    "attn.value": _MATRIX,
    "attn.projection": _MATRIX,
    "ffn.up": _MATRIX,
    "ffn.gate": _MATRIX,
    "ffn.down": _MATRIX,
    "embedding": "learned vectors read nothing",
}
SUB_LAYERS = ("attn.context", "attn.output", "ffn", "ffn.normed")  # they have a residual stream
STACKS = tuple(
    dict.fromkeys(
        ("encoder", "decoder", *(name for family in FAMILIES.values() for name in family.stacks))
    )
)
ATTENTIONS = ("self", "cross")


def check_slot(name: str, slot: SlotConfig) -> None:
    """Raise `Illegal`, with the reason, if the four axes of slot `name` cannot be combined."""
    representation = slot.representation
    for key, allowed in (("sites", SITES[name]), ("stacks", STACKS), ("attentions", ATTENTIONS)):
        _check_names(f"{name}.representation.{key}", getattr(representation, key), allowed, name)
    _check_layers(name, representation)
    _check_modules(name, representation.sites)
    for site in representation.sites:
        for reason in objections(site, slot):
            raise Illegal(f"slot {name}: {reason}")


def check_places(slots: Mapping[str, SlotConfig]) -> None:
    """Raise `Illegal` if two slots change one place in ways that cannot be summed."""
    for (name, slot), (other_name, other) in combinations(slots.items(), 2):
        shared = _shared_site(slot.representation.sites, other.representation.sites)
        if shared and not (_is_added(slot) and _is_added(other)):
            raise Illegal(
                f"slots {name} and {other_name} both change {shared}; this is legal only if both "
                "compositions add to h and both insertions are parallel"
            )


def _shared_site(sites: Sequence[str], others: Sequence[str]) -> str | None:
    """Return a site that writes to the same place as one of `others` in some family, or None."""
    for table in FAMILIES.values():
        places = {(table.taps(site) or site).rpartition(" -> ")[2] for site in others}
        for site in sites:
            if (table.taps(site) or site).rpartition(" -> ")[2] in places:
                return site
    return None


def _is_added(slot: SlotConfig) -> bool:
    declared = declaration_of(slot.composition.target)
    adds = declared is not None and declared.attributes.get("adds", False)
    return bool(adds) and slot.insertion == "parallel"


def objections(site: str, slot: SlotConfig) -> Iterator[str]:
    """Yield the reasons why form, insertion and composition are illegal at `site`.

    A form or composition from outside this package declares nothing. It is legal wherever its
    insertion is.
    """
    yield from _insertion_objections(site, slot.insertion)
    yield from _form_objections(site, slot.form)
    yield from _composition_objections(site, slot)


def _insertion_objections(site: str, insertion: str) -> Iterator[str]:
    if insertion == "post_norm" and site != "ffn.block":
        yield (
            f"insertion post_norm reads a block's normalised sum, which {site} does not have; "
            "use representation@ffn=ffn_block"
        )
    elif site == "ffn.block" and insertion != "post_norm":
        yield "representation ffn_block is read after its LayerNorm; use insertion@ffn=post_norm"
    elif insertion == "residual" and site not in SUB_LAYERS:
        yield (
            f"insertion residual reads the residual stream before a whole sub-layer, but {site} is "
            "only part of a sub-layer; use insertion parallel"
        )
    elif insertion == "sequential" and site in NOT_SEQUENTIAL:
        yield (
            f"insertion sequential is illegal at {site} ({NOT_SEQUENTIAL[site]}); "
            "use insertion parallel"
        )


def _form_objections(site: str, form: PartConfig) -> Iterator[str]:
    if declared := declaration_of(form.target):
        legal = declared.attributes["sites"]
        if legal and site not in legal:
            yield f"{declared.attributes['elsewhere']} (this is {site})"
        if reason := declared.attributes["illegal_at"].get(site):
            yield reason


def _composition_objections(site: str, slot: SlotConfig) -> Iterator[str]:
    composition, form = (declaration_of(p.target) for p in (slot.composition, slot.form))
    if site == "attn.heads" and slot.composition.keywords.get("norm"):
        yield "composition.norm normalises a whole hidden state, not a head; leave it false"
    if composition and form and composition.attributes["takes"] not in form.attributes["gives"]:
        # the part with the more specific requirement explains it
        specific = form if composition.attributes["takes"] == "change" else composition
        yield specific.attributes["needs"]
    if composition:
        yield from _requirements(site, composition, slot.form)


def _requirements(site: str, composition: Declaration, form: PartConfig) -> Iterator[str]:
    """Yield what the composition requires of the site and of the form's keywords."""
    declared = composition.attributes
    if declared["sites"] and site not in declared["sites"]:
        yield f"{declared['elsewhere']} (this is {site})"
    required = declared["requires"]
    if any(_keyword(form, name, value) != value for name, value in required.items()):
        yield declared["needs"]


def _keyword(form: PartConfig, name: str, default: Any) -> Any:
    """Return a keyword of the form, or its default there; `default` if there is no such keyword."""
    declared = declaration_of(form.target)
    fields = declared.keywords.model_fields if declared and declared.keywords else {}
    own = fields[name].default if name in fields else default
    return form.keywords.get(name, own)


def _check_names(path: str, names: Sequence[str], allowed: tuple[str, ...], slot: str) -> None:
    if not names:
        raise UserError(f"{path} is empty; choose from {', '.join(allowed)}")
    for name in names:
        if name not in allowed:
            other = next((s for s, sites in SITES.items() if name in sites), None)
            if other is not None and path.endswith("sites"):
                raise Illegal(f"slot {slot} cannot hold {name}: that site belongs to slot {other}")
            raise UserError(unknown_choice(path, name, allowed))
        if names.count(name) > 1:
            raise UserError(f"{path} names {name} twice")


def _check_modules(slot: str, sites: Sequence[str]) -> None:
    """Raise `Illegal` if two sites write to one module, which can hold one delta per slot."""
    for table in FAMILIES.values():
        site_of: dict[str, str] = {}
        for site in sites:
            module = _written_module(table.taps(site) or "")
            if module and (other := site_of.setdefault(module, site)) != site:
                raise Illegal(
                    f"slot {slot}: {other} and {site} write to the same place; name one of them"
                )


def _written_module(taps: str) -> str:
    """Return the module, and the part of it, that a tap pair writes to."""
    path, _, rest = taps.rpartition(" -> ")[2].partition(":")
    return f"{path}:{rest.partition(':')[2]}" if taps else ""


def _check_layers(slot: str, representation: RepresentationConfig) -> None:
    path, layers = f"{slot}.representation.layers", representation.layers
    if not layers:
        raise UserError(f"{path} is empty; give all, or layer numbers from 0")
    if layers != "all" and len(set(layers)) < len(layers):
        raise UserError(f"{path}={list(layers)} names a layer twice")
