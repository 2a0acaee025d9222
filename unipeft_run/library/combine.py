"""Combinations: which named deltas can be active together, and how they share a place.

Changes that are added (composition add, scaled or learned_scale) sum up; every delta reads the same
h. Memories at the same heads become one longer memory: two prefixes concatenate, which is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import nn

from unipeft_run.deltas import attach as core
from unipeft_run.deltas.attention import HEADS
from unipeft_run.deltas.compositions import Add, Composition, Gated, LearnedScale, Scaled
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.forms.vectors import Vectors
from unipeft_run.deltas.insertions import parallel
from unipeft_run.errors import UserError
from unipeft_run.library.store import NamedDelta

NO_JOIN = (
    "memories can be combined only if both are prefixes (composition gated), or both have "
    "activation relu and a composition that adds to h; both must read the same query, without a "
    "LayerNorm"
)
FIXED = (Add, Scaled, LearnedScale)  # compositions whose factor does not depend on the input
Deltas = Sequence[tuple[str, Delta]]


class JoinedMemory(Memory):
    """The memories of several deltas at the same heads, concatenated into one.

    The softmax over [P_1; P_2; K] is that of one prefix of length L_1 + L_2. For relu, which acts
    on every vector alone, the result is the sum of the changes; each part's scale multiplies its
    values.
    """

    def __init__(self, parts: Sequence[tuple[Memory, Composition]]) -> None:
        nn.Module.__init__(self)
        first = parts[0][0]
        self.query, self.activation = first.query, first.activation
        self.num_heads, self.norm = first.num_heads, None
        self.shifts_positions = first.shifts_positions
        self.attention_dropout = first.attention_dropout
        self.parts = nn.ModuleList(nn.ModuleList(part) for part in parts)

    @property
    def length(self) -> int:
        own = self._parameters.get("keys")
        parts: list[Any] = list(self.parts) if own is None else []
        return sum(form.length for form, _ in parts) if own is None else own.size(0)

    def memory(self) -> tuple[torch.Tensor, torch.Tensor]:
        if "keys" in self._parameters:
            return self.keys, self.values
        parts: list[Any] = list(self.parts)
        pairs = [form.memory() for form, _ in parts]
        scales = [getattr(composition, "scale", 1.0) for _, composition in parts]
        values = [scale * value for scale, (_, value) in zip(scales, pairs, strict=True)]
        return torch.cat([key for key, _ in pairs]), torch.cat(values)


def check_combination(deltas: Mapping[str, NamedDelta], names: Sequence[str]) -> None:
    """Raise UserError, with the reason, if these deltas cannot be active together."""
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name} is named twice")
    for first, second in combinations(names, 2):
        if reason := _find_conflict(deltas[first], deltas[second]):
            raise UserError(f"{first} and {second} cannot be active together: {reason}")


def _find_conflict(first: NamedDelta, second: NamedDelta) -> str | None:
    """Return why two deltas cannot be active together; None if they can."""
    if first.tuner or second.tuner:
        return "a method of the PEFT library cannot be combined with other deltas"
    if shared := sorted({*first.unfrozen} & {*second.unfrozen}):
        return f"both change the backbone's {shared[0]}, which can have one value only"
    prompts = [any(isinstance(d.form, Vectors) for _, d in n.deltas) for n in (first, second)]
    if all(prompts):
        return "both put vectors before the input, and their order would change the result"
    places = {delta.site.write: delta for _, delta in first.deltas}
    for _, delta in second.deltas:
        other = places.get(delta.site.write)
        if other is not None and (reason := _find_objection(other, delta)):
            return f"at {delta.site.write.path}, {reason}"
    return None


def _find_objection(first: Delta, second: Delta) -> str | None:
    """Return why two deltas cannot write to the same place; None if they can."""
    pair = (first, second)
    if first.site.write.side == "heads":
        return None if _can_join(pair) else NO_JOIN
    if not all(delta.composition.adds for delta in pair):
        return "only changes that are added can be summed"
    return None


def _can_join(pair: Sequence[Delta]) -> bool:
    """Return whether memories at the same heads can be joined into one longer memory."""
    forms = [delta.form for delta in pair]
    if not all(isinstance(form, Memory) and form.norm is None for form in forms):
        return False
    if len({(form.query, form.shifts_positions) for form in forms}) > 1:  # type: ignore[union-attr]
        return False
    if all(type(delta.composition) is Gated for delta in pair):
        return all(form.is_attention for form in forms)  # type: ignore[union-attr]
    added = all(isinstance(delta.composition, FIXED) for delta in pair)
    return added and all(form.activation == "relu" for form in forms)  # type: ignore[union-attr]


def place_deltas(model: nn.Module, named: Mapping[str, Deltas]) -> None:
    """Make the deltas modules of the model, and register their hooks.

    One delta keeps the names that it has in a run; further ones at the same module are called
    `delta_<slot>__<name>`, or join the first at attention heads.
    """
    for name, deltas in named.items():
        for path, delta in deltas:
            host = model.get_submodule(delta.site.write.path)
            child = path.rpartition(".")[2]
            present = getattr(host, child, None)
            if present is None:
                host.add_module(child, delta)
            elif child == HEADS and delta.site.write.side == "heads":
                setattr(host, child, _join(present, delta))
            else:
                host.add_module(f"{child}__{name}", delta)
    core.register_hooks(model)


def _join(first: Delta, second: Delta) -> Delta:
    """Return one delta with the memories of both."""
    own: list[Any] = [(first.form, first.composition)]
    if isinstance(first.form, JoinedMemory):
        own = list(first.form.parts)
    added: Any = (second.form, second.composition)
    form = JoinedMemory([*own, added])
    gated = isinstance(first.composition, Gated)
    composition = first.composition if gated else Add(first.site)
    return Delta(first.site, form, parallel, composition).train(first.training)
