"""unipeft space: list, count, explain and size the points of the design space.

Imports nothing heavy, except in `solve`, which needs torch to count parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.commands.arguments import Parser
from unipeft_run.commands.entry import entry
from unipeft_run.config import check_config, compose
from unipeft_run.config.design_space import (
    Point,
    combinations,
    count_configurations,
    count_distinct,
    drop_sizes,
    equal_points,
    find_objections,
    legal_points,
    read_headline,
    training_only,
)
from unipeft_run.config.messages import Illegal, options, unknown_choice, unknown_key
from unipeft_run.config.schema import AXES, SLOTS, SlotConfig
from unipeft_run.errors import UserError
from unipeft_run.runs.columns import align

if TYPE_CHECKING:
    from unipeft_run.deltas.counting.budget import Solution

HELP = """\
The design space  h <- composition(h, form(insertion(x, h)))

  list [attn|ffn|input|matrix]     the legal points of each slot, and which of them are equivalent
  count                            combinations, legal points and distinct functions
  explain key=value ...            is a point legal, equivalent to another one, or illegal, and why?
  solve key=value ... budget=1%    the largest bottlenecks that fit a budget of stored parameters

Two points are equivalent if they store the same tensors and compute the same function of them."""
EXAMPLES = """\
unipeft space explain form@ffn=bottleneck insertion@ffn=sequential
unipeft space explain method=mam composition@ffn=gated
unipeft space solve task=xsum method=mam budget=1%
unipeft space solve task=sst2 method=lora_attn budget=300000"""


@entry
def main(argv: Sequence[str]) -> int:
    """Answer one question about the design space; return the exit code."""
    commands: dict[str, Callable[[Sequence[str]], Iterator[str]]] = {
        "list": _list,
        "count": _count,
        "explain": _explain,
        "solve": _solve,
    }
    parser = Parser("space", HELP, EXAMPLES)
    parser.add_argument("question", choices=commands, metavar="|".join(commands))
    parser.add_argument("words", nargs="*", metavar="key=value")
    args = parser.parse(argv)
    for line in commands[args.question](args.words):
        print(line)
    return 0


def _list(slots: Sequence[str]) -> Iterator[str]:
    for slot in slots:
        if slot not in SLOTS:
            raise UserError(unknown_choice("slot", slot, SLOTS))
    for slot in slots or SLOTS:
        for point in legal_points(slot):
            line = " ".join(point.overrides)
            first = _first_equal_point(point)
            yield f"{line}   = {_differing_overrides(point, first)}" if first else line


def _first_equal_point(point: Point) -> Point | None:
    """Find the first point of the list that is equivalent to this one in every family."""
    equal = equal_points(point.compose(), point.slot)
    everywhere = [other for other, families in equal.items() if len(families) == len(FAMILIES)]
    return everywhere[0] if everywhere and everywhere[0] != point else None


def _differing_overrides(point: Point, other: Point) -> str:
    """Return the overrides of `other` that `point` does not share."""
    return " ".join(override for override in other.overrides if override not in point.overrides)


def _count(arguments: Sequence[str]) -> Iterator[str]:
    if arguments:
        raise UserError(f"unipeft space count takes no arguments, but got {arguments[0]}")
    counts = {
        "combinations": {slot: len(list(combinations(slot))) for slot in SLOTS},
        "legal": {slot: len(legal_points(slot)) for slot in SLOTS},
        **_count_distinct_by_families(),
    }
    rows = [
        [name, *(str(count[slot]) for slot in SLOTS), str(count_configurations(count))]
        for name, count in counts.items()
    ]
    yield from align(("slot", *SLOTS, "all"), rows, left=(0,))
    yield "all: ways to fill the four slots, each with a point or left empty; sizes not counted"


def _count_distinct_by_families() -> dict[str, dict[str, int]]:
    """Count the distinct functions in each slot, for groups of families with equal counts."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for family in FAMILIES:
        counts = tuple(count_distinct(slot, family) for slot in SLOTS)
        groups.setdefault(counts, []).append(family)
    return {
        f"distinct on {', '.join(families)}": dict(zip(SLOTS, counts, strict=True))
        for counts, families in groups.items()
    }


def _explain(overrides: Sequence[str]) -> Iterator[str]:
    if not overrides:
        raise UserError(
            "nothing to explain; give axes, as in form@ffn=bottleneck insertion@ffn=parallel"
        )
    if any(override.partition("=")[0] in ("method", "task") for override in overrides):
        yield from _explain_configuration(overrides)
        return
    for slot, (axes, slot_overrides) in _group_by_slot(overrides).items():
        yield from _explain_slot(slot, axes, slot_overrides)


def _explain_configuration(overrides: Sequence[str]) -> Iterator[str]:
    """Explain a whole configuration, by default of task=xsum and method=none."""
    keys = {override.partition("=")[0] for override in overrides}
    defaults = {"task": "task=xsum", "method": "method=none"}
    added = [override for key, override in defaults.items() if key not in keys]
    try:
        config = check_config(compose([*added, *overrides]), overrides)
    except Illegal as reason:
        yield f"illegal: {reason}"
        return
    for name, slot in config.slots().items():
        yield from _describe_legal(name, slot)
    if config.peft is not None:
        yield f"legal, outside the design space: {config.peft.type} of the PEFT library"
    elif not config.slots():
        yield f"legal: no slot is filled; {', '.join(config.unfreeze) or 'nothing'} trains"


def _group_by_slot(overrides: Sequence[str]) -> dict[str, tuple[dict[str, str], list[str]]]:
    """Group the overrides: slot -> the chosen axes, and the overrides of single keys."""
    slots: dict[str, tuple[dict[str, str], list[str]]] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        axis, at, slot = key.partition("@")
        if not at:
            slot, _, axis = key.partition(".")
        if not equals or slot not in SLOTS or (at and axis not in AXES):
            known = [f"{axis}@{slot}" for axis in AXES for slot in SLOTS]
            raise UserError(unknown_key(key, [*known, *(f"{s}.bottleneck" for s in SLOTS)]))
        axes, slot_overrides = slots.setdefault(slot, ({}, []))
        if not at:
            slot_overrides.append(override.removeprefix(f"{slot}."))
        elif value not in options(axis):
            raise UserError(unknown_choice(key, value, options(axis)))
        else:
            axes[axis] = value
    return slots


def _explain_slot(slot: str, axes: Mapping[str, str], overrides: Sequence[str]) -> Iterator[str]:
    points, objections = list(combinations(slot, axes)), {}
    mistakes: list[UserError] = []
    for point in points:
        try:
            objections[point] = find_objections(point, overrides)
        except UserError as problem:
            objections[point] = [str(problem)]
            mistakes += [] if isinstance(problem, Illegal) else [problem]
    if len(mistakes) == len(points):  # else the overrides belong to some of the forms
        raise mistakes[0]
    legal = [point for point in points if not objections[point]]
    if not legal:
        nearest = min(points, key=lambda point: len(objections[point]))
        yield f"slot {slot}: illegal: {objections[nearest][0]}"
    elif len(points) == 1:
        yield from _describe_legal(slot, legal[0].compose(overrides))
    else:
        chosen = [f"{axis}@{slot}={name}" for axis, name in axes.items()]
        yield f"slot {slot}: legal, with one of"
        for point in legal:
            yield "  " + " ".join(o for o in point.overrides if o not in chosen)


def _describe_legal(name: str, slot: SlotConfig) -> Iterator[str]:
    """Yield the points that are equivalent to `slot`, and what each of its axes means."""
    equal = equal_points(slot, name)
    own = next((point for point in equal if not _differing_axes(slot, point)), None)
    others = {point: families for point, families in equal.items() if point != own}
    yield f"slot {name}: legal" + (", but equivalent to another point" if others else "")
    for families in dict.fromkeys(map(tuple, others.values())):
        group = [point for point in others if tuple(others[point]) == families]
        nearest = min(group, key=lambda point: len(_differing_axes(slot, point)))
        where = "" if len(families) == len(FAMILIES) else f" on {' and '.join(families)}"
        notes = _explain_differences(slot, nearest)
        yield f"  equivalent to {' '.join(nearest.overrides)}{where}{notes}"
    if own is not None:
        for axis in AXES:
            value = getattr(own, axis)
            yield f"  {axis:<15}{value:<17}{read_headline(axis, value)}"


def _differing_axes(slot: SlotConfig, point: Point) -> list[str]:
    """List the axes in which the two differ, apart from sizes."""
    own = point.compose()
    return [a for a in AXES if drop_sizes(getattr(own, a)) != drop_sizes(getattr(slot, a))]


def _explain_differences(slot: SlotConfig, other: Point) -> str:
    """Name the keywords in which the two forms differ, and say why that does not matter."""
    keywords, other_keywords = slot.form.keywords, other.compose().form.keywords
    harmless = training_only(slot.form)
    keys = [key for key in harmless if other_keywords.get(key) != keywords.get(key)]
    return "".join(f"; form.{key} differs: {harmless[key]}" for key in keys)


def _solve(arguments: Sequence[str]) -> Iterator[str]:
    from unipeft_run.deltas.counting.budget import solve

    overrides = [argument for argument in arguments if not argument.startswith("budget=")]
    budgets = [a.removeprefix("budget=") for a in arguments if a.startswith("budget=")]
    if not budgets:
        raise UserError("budget= is missing; give one, as in budget=1% or budget=500000")
    solution = solve(overrides, budgets[-1])
    config, backbone = solution.config, solution.backbone
    yield f"{config.task.name} | {config.backbone.name} | {config.method}"
    yield f"budget {solution.budget:,} of {backbone:,}: {100 * solution.budget / backbone:.4f} %"
    slots = solution.count.slots
    heads = (*(f"{slot}.bottleneck" for slot in slots), "stored", "share")
    heads += (*(f"{slot} part" for slot in slots), "")
    yield from align(heads, [_solution_row(solution, sizes) for sizes in solution.sizes], left=())


def _solution_row(solution: Solution, sizes: Sequence[int]) -> list[str]:
    count = solution.count
    stored = count.stored(sizes)
    parts = [a * n / (stored - count.fixed) for a, n in zip(count.per_unit, sizes, strict=True)]
    cells = [
        *map(str, solution.bottlenecks(sizes)),
        f"{stored:,}",
        f"{100 * stored / solution.backbone:.4f} %",
    ]
    nearest = "nearest" if sizes == solution.sizes[0] else ""
    return [*cells, *(f"{part:.0%}" for part in parts), nearest]
