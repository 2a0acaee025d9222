"""Sizes for a budget of stored numbers.

What a method stores is linear in each of its sizes, whatever its forms: the counts at a few sizes
give the line, and the count at the solution is checked against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unipeft_run.config import compose, resolve
from unipeft_run.config.schema import SLOTS
from unipeft_run.deltas.counting.counts import counts
from unipeft_run.errors import UserError

SPLITS = (0.1, 0.25, 0.5, 0.75, 0.9)  # shares of the budget for the first slot


@dataclass(frozen=True)
class Line:
    """stored(sizes) = fixed + sum of per_unit * size, one per slot."""

    slots: tuple[str, ...]
    fixed: int
    per_unit: tuple[int, ...]

    def stored(self, sizes: Sequence[int]) -> int:
        return self.fixed + sum(a * n for a, n in zip(self.per_unit, sizes, strict=True))


def solve(words: Sequence[str]) -> Iterator[str]:
    """The lines that `unipeft-space solve` prints. Raises `UserError`."""
    overrides = [word for word in words if not word.startswith("budget=")]
    asked = [word.removeprefix("budget=") for word in words if word.startswith("budget=")]
    if not asked:
        raise UserError("how much may be stored? give budget=, as in budget=1% or budget=500000")
    cfg = resolve(compose(overrides))
    slots = tuple(slot for slot in SLOTS if cfg[slot] is not None)
    if not slots:
        raise UserError(f"method {cfg['method']} has no size to solve for")
    if len(slots) > 2:
        raise UserError(f"{', '.join(slots)} are filled; sizes are solved for one slot or two")
    backbone = counts(cfg)["backbone"]
    budget = _budget(asked[-1], backbone)
    line = measure(overrides, slots)
    for slot, step in zip(slots, line.per_unit, strict=True):
        if step == 0:
            raise UserError(f"what slot {slot} stores does not depend on {slot}.bottleneck")
    smallest = line.stored([1] * len(slots))
    if budget < smallest:
        raise UserError(
            f"the least that {cfg['method']} stores is {smallest:,}, "
            f"{100 * smallest / backbone:.4f} % of the backbone: above the budget of {budget:,}"
        )
    own = [cfg[slot]["bottleneck"] for slot in slots]
    found = candidates(line, budget, own)
    assert count_at(overrides, slots, found[0]) == line.stored(found[0]), "a line after all"
    yield f"{cfg['task']['name']} | {cfg['backbone']['name']} | {cfg['method']}"
    yield f"budget {budget:,} of {backbone:,}: {100 * budget / backbone:.4f} %"
    yield from _table(line, found, backbone)


def _budget(text: str, backbone: int) -> int:
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise UserError(f"budget={text} is neither a percentage, as in 1%, nor a number of numbers")
    return int(backbone * number / 100 if text.endswith("%") else number)


def measure(overrides: Sequence[str], slots: tuple[str, ...]) -> Line:
    """What is stored as a function of the slots' sizes."""

    def stored(sizes: Sequence[int]) -> int:
        return count_at(overrides, slots, sizes)

    ones = [1] * len(slots)
    base = stored(ones)
    steps = tuple(
        stored([2 if i == j else 1 for j in range(len(slots))]) - base for i in range(len(slots))
    )
    return Line(slots, base - sum(steps), steps)


def count_at(overrides: Sequence[str], slots: Sequence[str], sizes: Sequence[int]) -> int:
    """What is stored at these sizes."""
    given = [f"{slot}.bottleneck={size}" for slot, size in zip(slots, sizes, strict=True)]
    return int(counts(resolve(compose([*overrides, *given])))["stored"])


def candidates(line: Line, budget: int, own: Sequence[int]) -> list[tuple[int, ...]]:
    """The sizes nearest below the budget, for several splits; the nearest of all is the first.

    `own` are the method's sizes, of which one split has the proportion. Of sizes that store the
    same, those nearest to that proportion are taken.
    """
    room = budget - line.fixed
    if len(line.slots) == 1:
        return [(room // line.per_unit[0],)]
    assert len(line.slots) == 2, "a method fills one slot or two"
    first, second = line.per_unit
    share = first * own[0] / (first * own[0] + second * own[1])
    pairs = [(n, (room - first * n) // second) for n in range(1, (room - second) // first + 1)]
    nearest = max(pairs, key=lambda p: (line.stored(p), -abs(first * p[0] / room - share)))
    splits = [_at(line, room, wanted) for wanted in (share, *SPLITS)]
    return list(dict.fromkeys([nearest, *splits]))


def _at(line: Line, room: int, share: float) -> tuple[int, int]:
    """The sizes nearest below `room`, the first with about this share of it."""
    first, second = line.per_unit
    most = (room - second) // first
    size = min(max(1, round(share * room / first)), most)
    return size, (room - first * size) // second


def _table(line: Line, found: list[tuple[int, ...]], backbone: int) -> Iterator[str]:
    heads = [f"{slot}.bottleneck" for slot in line.slots]
    yield "  ".join([*heads, f"{'stored':>14}", "   share", *(f"{s} part" for s in line.slots)])
    for sizes in found:
        total = line.stored(sizes)
        parts = [a * n / (total - line.fixed) for a, n in zip(line.per_unit, sizes, strict=True)]
        cells = [f"{n:>{len(head)}}" for n, head in zip(sizes, heads, strict=True)]
        cells += [f"{total:>14,}", f"{100 * total / backbone:>6.4f} %"]
        cells += [f"{part:>{len(s) + 5}.0%}" for part, s in zip(parts, line.slots, strict=True)]
        yield "  ".join(cells) + ("   nearest" if sizes == found[0] else "")
