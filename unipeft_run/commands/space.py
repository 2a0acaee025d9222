"""unipeft-space: list, count, explain and size the points of the design space.

Imports nothing heavy; only `solve` needs torch, to count parameters.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.config import compose, resolve
from unipeft_run.config.design_space import (
    Point,
    combinations,
    configurations,
    distinct,
    headline,
    legal,
    reasons,
    training_only,
    twins,
    unsized,
)
from unipeft_run.config.messages import Illegal, options, unknown_choice, unknown_key
from unipeft_run.config.schema import AXES, SLOTS, SlotConfig
from unipeft_run.errors import UserError

HELP = """\
usage: unipeft-space list [attn|ffn|input] | count | explain WORD ... | solve WORD ... budget=1%
  The design space  h <- composition(h, form(insertion(x, h)))

  list      the legal points of each slot, and which of them are equal
  count     numbers of combinations, of legal points and of distinct functions
  explain   whether a point is legal, equal to another one, or illegal and why
  solve     bottlenecks whose stored share of the backbone comes closest below a budget

  unipeft-space explain form@ffn=bottleneck insertion@ffn=sequential
  unipeft-space explain method=mam composition@ffn=gated
  unipeft-space solve task=xsum method=mam budget=1%
  unipeft-space solve task=sst2 method=lora_attn budget=300000

  Two points are equal if they store the same tensors and compute the same function of them."""


def space() -> NoReturn:
    """unipeft-space."""
    ignore_broken_pipes()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run the command; return 0, or 2 for a wrong argument."""
    if not argv or set(argv) & {"-h", "--help"}:
        print(HELP)
        return 0 if argv else 2
    commands: dict[str, Callable[[Sequence[str]], Iterator[str]]] = {
        "list": _list,
        "count": _count,
        "explain": _explain,
        "solve": _solve,
    }
    try:
        if argv[0] not in commands:
            raise UserError(f"unipeft-space {argv[0]}: choose from {', '.join(commands)}")
        for line in commands[argv[0]](argv[1:]):
            print(line)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _list(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if word not in SLOTS:
            raise UserError(unknown_choice("slot", word, SLOTS))
    for slot in words or SLOTS:
        for point in legal(slot):
            line = " ".join(point.words)
            first = _first_twin(point, point.content())
            yield f"{line}   = {_departure(point, first)}" if first else line


def _first_twin(point: Point, content: SlotConfig) -> Point | None:
    """Find the first point of the list that equals this one in every family."""
    same = [p for p, where in twins(content, point.slot).items() if len(where) == len(FAMILIES)]
    return same[0] if same and same[0] != point else None


def _departure(point: Point, other: Point) -> str:
    """The overrides of `other` that `point` does not share."""
    return " ".join(word for word in other.words if word not in point.words)


def _count(words: Sequence[str]) -> Iterator[str]:
    if words:
        raise UserError(f"unipeft-space count takes no arguments, but got {words[0]}")
    heads = ("slot", "combinations", "legal", *(f"distinct on {family}" for family in FAMILIES))
    yield "  ".join(heads)
    numbers = [{slot: len(list(combinations(slot))) for slot in SLOTS}]
    numbers += [{slot: len(legal(slot)) for slot in SLOTS}]
    numbers += [{slot: distinct(slot, family) for slot in SLOTS} for family in FAMILIES]
    rows = {slot: [column[slot] for column in numbers] for slot in SLOTS}
    rows["all"] = [configurations(column) for column in numbers]
    for name, row in rows.items():
        cells = (f"{n:>{len(head)}}" for n, head in zip(row, heads[1:], strict=True))
        yield "  ".join([f"{name:<5}"[: max(5, len(heads[0]))], *cells])
    yield "all: ways to fill the three slots, each with a point or left empty; sizes not counted"


def _explain(words: Sequence[str]) -> Iterator[str]:
    if not words:
        raise UserError(
            "nothing to explain; give axes, as in form@ffn=bottleneck insertion@ffn=parallel"
        )
    if any(word.partition("=")[0] in ("method", "task") for word in words):
        yield from _explain_configuration(words)
        return
    for slot, (axes, changes) in _by_slot(words).items():
        yield from _explain_slot(slot, axes, changes)


def _explain_configuration(words: Sequence[str]) -> Iterator[str]:
    """Explain a whole configuration as unipeft-train would judge it."""
    keys = {word.partition("=")[0] for word in words}
    filled = [f"{key}={word}" for key, word in (("task", "xsum"), ("method", "none"))]
    try:
        config = resolve(compose([*(w for w in filled if w.partition("=")[0] not in keys), *words]))
    except Illegal as sentence:
        yield f"illegal: {sentence}"
        return
    for name, slot in config.slots().items():
        yield from _verdict(name, slot)
    if not config.slots():
        yield f"legal: no slot is filled; {', '.join(config.unfreeze) or 'nothing'} trains"


def _by_slot(words: Sequence[str]) -> dict[str, tuple[dict[str, str], list[str]]]:
    """Sort the arguments: slot -> its axes, and its overrides of single keys."""
    slots: dict[str, tuple[dict[str, str], list[str]]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        axis, at, slot = key.partition("@")
        if not at:
            slot, _, axis = key.partition(".")
        if not equals or slot not in SLOTS or (at and axis not in AXES):
            known = [f"{axis}@{slot}" for axis in AXES for slot in SLOTS]
            raise UserError(unknown_key(key, [*known, *(f"{s}.bottleneck" for s in SLOTS)]))
        axes, changes = slots.setdefault(slot, ({}, []))
        if not at:
            changes.append(word.removeprefix(f"{slot}."))
        elif value not in options(axis):
            raise UserError(unknown_choice(key, value, options(axis)))
        else:
            axes[axis] = value
    return slots


def _explain_slot(slot: str, axes: Mapping[str, str], changes: Sequence[str]) -> Iterator[str]:
    points, why = list(combinations(slot, axes)), {}
    for point in points:
        try:
            why[point] = reasons(point, changes)
        except Illegal as problem:
            why[point] = [str(problem)]
        except UserError as problem:  # the overrides may belong to another form
            if len(points) == 1:
                raise
            why[point] = [str(problem)]
    fine = [point for point in points if not why[point]]
    if not fine:
        nearest = min(points, key=lambda point: len(why[point]))
        yield f"slot {slot}: illegal: {why[nearest][0]}"
    elif len(points) == 1:
        yield from _verdict(slot, fine[0].content(changes))
    else:
        given = [f"{axis}@{slot}={name}" for axis, name in axes.items()]
        yield f"slot {slot}: legal, with one of"
        for point in fine:
            yield "  " + " ".join(word for word in point.words if word not in given)


def _verdict(slot: str, content: SlotConfig) -> Iterator[str]:
    same = twins(content, slot)
    name = next((point for point in same if _is(point, content)), None)
    others = {point: where for point, where in same.items() if point != name}
    yield f"slot {slot}: legal" + (", but equal to another point" if others else "")
    for where in dict.fromkeys(map(tuple, others.values())):
        group = [point for point in others if tuple(others[point]) == where]
        nearest = min(group, key=lambda point: len(_departure_of(content, point)))
        place = "" if len(where) == len(FAMILIES) else f" on {' and '.join(where)}"
        yield f"  equal to {' '.join(nearest.words)}{place}{_why(content, nearest)}"
    if name is not None:
        for axis in AXES:
            word = getattr(name, axis)
            yield f"  {axis:<15}{word:<17}{headline(axis, word)}"


def _is(point: Point, content: SlotConfig) -> bool:
    return not _departure_of(content, point)


def _departure_of(content: SlotConfig, point: Point) -> list[str]:
    """The axes in which the two differ, apart from sizes."""
    own = point.content()
    return [a for a in AXES if unsized(getattr(own, a)) != unsized(getattr(content, a))]


def _why(content: SlotConfig, other: Point) -> str:
    """The keywords in which the two forms differ, and why that does not matter."""
    theirs, mine = other.content().form.keywords, content.form.keywords
    harmless = training_only(content.form)
    keys = [key for key in harmless if theirs.get(key) != mine.get(key)]
    return "".join(f"; form.{key} differs: {harmless[key]}" for key in keys)


def _solve(words: Sequence[str]) -> Iterator[str]:
    from unipeft_run.deltas.counting.budget import solve

    yield from solve(words)
