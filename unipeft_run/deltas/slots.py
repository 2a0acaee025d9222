"""Slots: build the deltas of a configuration, site by site. Imports torch, not transformers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from unipeft_run.backbones.site import Site
from unipeft_run.config.classes import construct as construct_class
from unipeft_run.config.classes import import_class
from unipeft_run.config.schema import PartConfig, RunConfig, SlotConfig
from unipeft_run.deltas import insertions
from unipeft_run.deltas.compositions import Composition
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.base import Form
from unipeft_run.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One kind of change, applied at all sites of a representation.

    Args:
        form: builds the form from a site.
        insertion: a function's name in `insertions`.
        representation: `sites` and, to narrow them, `stacks`, `attentions`, `layers`.
        composition: builds the composition from a site.
    """

    form: Callable[[Site], Form]
    insertion: str
    representation: Mapping[str, Any]
    composition: Callable[[Site], Composition]

    def build(self, site: Site) -> Delta:
        """Build the delta of one site."""
        insertion = getattr(insertions, self.insertion)
        return Delta(site, self.form(site), insertion, self.composition(site))


def build_slots(config: RunConfig, *, inference: bool = False) -> dict[str, Slot]:
    """Build the filled slots of a configuration; `inference`: with the stored parameters only."""
    slots = stored_slots(config) if inference else config.slots()
    return {name: build_slot(name, slot) for name, slot in slots.items()}


def build_slot(name: str, slot: SlotConfig) -> Slot:
    """Build one slot. Raises UserError for a class that cannot be imported."""
    return Slot(
        form=_constructor(f"{name}.form", slot.form),
        composition=_constructor(f"{name}.composition", slot.composition),
        insertion=slot.insertion,
        representation=slot.representation.model_dump(),
    )


def stored_slots(config: RunConfig) -> dict[str, SlotConfig]:
    """Return the filled slots with the forms that are stored for inference."""
    return {name: stored_form(slot) for name, slot in config.slots().items()}


def stored_form(slot: SlotConfig) -> SlotConfig:
    """Return the slot with a form that has only the parameters inference needs."""
    keywords = import_class("form", slot.form.target).inference_keywords
    return slot.model_copy(update={"form": slot.form.model_copy(update=dict(keywords))})


def _constructor(key: str, part: PartConfig) -> Callable[[Site], Any]:
    build = partial(import_class(key, part.target), **part.keywords)

    def construct(site: Site) -> Any:
        return construct_class(key, part.target, lambda: build(site))

    return construct


def matching_parameters(names: Iterable[str], patterns: str | Sequence[str]) -> set[str]:
    """Select the names that match the pattern, or one of several.

    Raises UserError for a pattern that matches nothing.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    all_names = list(names)
    matches = {p: {name for name in all_names if fnmatchcase(name, p)} for p in patterns}
    if unmatched := [pattern for pattern in patterns if not matches[pattern]]:
        raise UserError(f"unfreeze: {unmatched[0]!r} matches no parameter of the backbone")
    return set().union(*matches.values())
