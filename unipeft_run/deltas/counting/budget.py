"""Find bottleneck sizes that fit a budget of stored parameters.

The stored count is a linear function of the bottlenecks, whatever the form. Counts at a few sizes
determine the function, and the count at the solution is checked against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unipeft_run.config import compose, resolve
from unipeft_run.deltas.counting.counts import counts
from unipeft_run.errors import UserError

SPLITS = (0.1, 0.25, 0.5, 0.75, 0.9)  # fractions of the budget for the first slot


@dataclass(frozen=True)
class LinearCount:
    """stored(sizes) = fixed + sum of per_unit * size over the slots."""

    slots: tuple[str, ...]
    fixed: int
    per_unit: tuple[int, ...]

    def stored(self, sizes: Sequence[int]) -> int:
        return self.fixed + sum(a * n for a, n in zip(self.per_unit, sizes, strict=True))


def solve(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the lines that `unipeft-space solve` prints. Raises UserError."""
    overrides = [argument for argument in arguments if not argument.startswith("budget=")]
    budgets = [a.removeprefix("budget=") for a in arguments if a.startswith("budget=")]
    if not budgets:
        raise UserError("budget= is missing; give one, as in budget=1% or budget=500000")
    config = resolve(compose(overrides))
    slots = tuple(config.slots())
    if not slots:
        raise UserError(f"method {config.method} has no bottleneck to solve for")
    if len(slots) > 2:
        raise UserError(f"{', '.join(slots)} are filled; solving works for one slot or two")
    backbone = counts(config)["backbone"]
    budget = _parse_budget(budgets[-1], backbone)
    line = measure(overrides, slots)
    for slot, per_unit in zip(slots, line.per_unit, strict=True):
        if per_unit == 0:
            raise UserError(f"the stored count of slot {slot} does not depend on {slot}.bottleneck")
    smallest = line.stored([1] * len(slots))
    if budget < smallest:
        raise UserError(
            f"{config.method} stores at least {smallest:,} parameters, "
            f"{100 * smallest / backbone:.4f} % of the backbone: over the budget of {budget:,}"
        )
    own = [slot.bottleneck or 1 for slot in config.slots().values()]
    solutions = find_candidates(line, budget, own)
    assert count_at(overrides, slots, solutions[0]) == line.stored(solutions[0]), "not linear"
    yield f"{config.task.name} | {config.backbone.name} | {config.method}"
    yield f"budget {budget:,} of {backbone:,}: {100 * budget / backbone:.4f} %"
    yield from _table(line, solutions, backbone)


def _parse_budget(text: str, backbone: int) -> int:
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise UserError(f"budget={text}: must be a share, as in 1%, or a parameter count")
    return int(backbone * number / 100 if text.endswith("%") else number)


def measure(overrides: Sequence[str], slots: tuple[str, ...]) -> LinearCount:
    """Determine the stored count as a function of the slots' bottlenecks."""

    def stored(sizes: Sequence[int]) -> int:
        return count_at(overrides, slots, sizes)

    ones = [1] * len(slots)
    base = stored(ones)
    steps = tuple(
        stored([2 if i == j else 1 for j in range(len(slots))]) - base for i in range(len(slots))
    )
    return LinearCount(slots, base - sum(steps), steps)


def count_at(overrides: Sequence[str], slots: Sequence[str], sizes: Sequence[int]) -> int:
    """Count the stored parameters at these bottlenecks."""
    bottlenecks = [f"{slot}.bottleneck={size}" for slot, size in zip(slots, sizes, strict=True)]
    return int(counts(resolve(compose([*overrides, *bottlenecks])))["stored"])


def find_candidates(line: LinearCount, budget: int, own: Sequence[int]) -> list[tuple[int, ...]]:
    """Find the largest bottlenecks within the budget for several splits; the closest comes first.

    `own` are the method's bottlenecks; one split has their proportion. Among bottlenecks that store
    equally much, those closest to that proportion win.
    """
    room = budget - line.fixed
    if len(line.slots) == 1:
        return [(room // line.per_unit[0],)]
    assert len(line.slots) == 2, "a method fills one slot or two"
    first, second = line.per_unit
    share = first * own[0] / (first * own[0] + second * own[1])
    pairs = [(n, (room - first * n) // second) for n in range(1, (room - second) // first + 1)]
    nearest = max(pairs, key=lambda p: (line.stored(p), -abs(first * p[0] / room - share)))
    splits = [_split(line, room, wanted) for wanted in (share, *SPLITS)]
    return list(dict.fromkeys([nearest, *splits]))


def _split(line: LinearCount, room: int, share: float) -> tuple[int, int]:
    """Find the largest bottlenecks within `room` of which the first takes about this share."""
    first, second = line.per_unit
    most = (room - second) // first
    size = min(max(1, round(share * room / first)), most)
    return size, (room - first * size) // second


def _table(line: LinearCount, solutions: list[tuple[int, ...]], backbone: int) -> Iterator[str]:
    heads = [f"{slot}.bottleneck" for slot in line.slots]
    yield "  ".join([*heads, f"{'stored':>14}", "   share", *(f"{s} part" for s in line.slots)])
    for sizes in solutions:
        total = line.stored(sizes)
        parts = [a * n / (total - line.fixed) for a, n in zip(line.per_unit, sizes, strict=True)]
        cells = [f"{n:>{len(head)}}" for n, head in zip(sizes, heads, strict=True)]
        cells += [f"{total:>14,}", f"{100 * total / backbone:>6.4f} %"]
        cells += [f"{part:>{len(s) + 5}.0%}" for part, s in zip(parts, line.slots, strict=True)]
        yield "  ".join(cells) + ("   nearest" if sizes == solutions[0] else "")
