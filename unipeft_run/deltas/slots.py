"""A slot: one kind of change, at all sites of a representation. Imports torch, not transformers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import hydra.utils

from unipeft_run.config.schema import SLOTS
from unipeft_run.deltas import insertions
from unipeft_run.deltas.compositions import Composition
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.base import Form
from unipeft_run.deltas.site import Site
from unipeft_run.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One kind of change, at all sites of a representation.

    Args:
        form, composition: build the part from a site.
        insertion: a function's name in `insertions`.
        representation: `sites` and, to narrow them, `stacks`, `attentions`, `layers`.
    """

    form: Callable[[Site], Form]
    insertion: str
    representation: Mapping[str, Any]
    composition: Callable[[Site], Composition]

    def build(self, site: Site) -> Delta:
        insertion = getattr(insertions, self.insertion)
        return Delta(site, self.form(site), insertion, self.composition(site))


def built(slot: Mapping[str, Any] | None) -> Slot | None:
    """A slot of the configuration as one of `attach`."""
    if slot is None or slot.get("form") is None:
        return None
    form, composition = (hydra.utils.instantiate(slot[key]) for key in ("form", "composition"))
    return Slot(
        form=form,
        composition=composition,
        insertion=slot["insertion"],
        representation=slot["representation"],
    )


def folded(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The slots under which the deltas hold just what is stored."""
    slots = {}
    for name in SLOTS:
        if cfg[name] is not None:
            form = cfg[name]["form"]
            changes = hydra.utils.get_class(form["_target_"]).folded
            slots[name] = {**cfg[name], "form": {**form, **changes}}
    return slots


def unfrozen(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """The names that match one of the patterns.

    Raises UserError for a pattern that matches nothing.
    """
    known = list(names)
    hits = {p: {name for name in known if fnmatchcase(name, p)} for p in patterns}
    if missing := [pattern for pattern in patterns if not hits[pattern]]:
        raise UserError(f"unfreeze: {missing[0]!r} matches no parameter of the backbone")
    return set().union(*hits.values())
