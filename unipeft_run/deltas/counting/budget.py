"""Find bottleneck sizes that fit a budget of stored parameters.

The stored count is a linear function of the bottlenecks, whatever the form. Counts at a few sizes
determine the function, and the count at the solution is checked against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unipeft_run.config import RunConfig, compose, resolve
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


@dataclass(frozen=True)
class Solution:
    """Bottlenecks within a budget of stored parameters, the closest ones first."""

    config: RunConfig
    backbone: int
    budget: int
    count: LinearCount
    sizes: list[tuple[int, ...]]


def solve(overrides: Sequence[str], budget: str) -> Solution:
    """Find bottlenecks for a budget such as 1% or 500000. Raises UserError."""
    config = resolve(compose(overrides))
    slots = tuple(config.slots())
    if not slots:
        raise UserError(f"method {config.method} has no bottleneck to solve for")
    if len(slots) > 2:
        raise UserError(f"{', '.join(slots)} are filled; solving works for one slot or two")
    backbone = counts(config)["backbone"]
    limit = _parse_budget(budget, backbone)
    count = measure(overrides, slots)
    _check_solvable(count, config.method, limit, backbone)
    own = [slot.bottleneck or 1 for slot in config.slots().values()]
    sizes = find_candidates(count, limit, own)
    assert count_at(overrides, slots, sizes[0]) == count.stored(sizes[0]), "not linear"
    return Solution(config, backbone, limit, count, sizes)


def _check_solvable(count: LinearCount, method: str, budget: int, backbone: int) -> None:
    for slot, per_unit in zip(count.slots, count.per_unit, strict=True):
        if per_unit == 0:
            raise UserError(f"the stored count of slot {slot} does not depend on {slot}.bottleneck")
    smallest = count.stored([1] * len(count.slots))
    if budget < smallest:
        raise UserError(
            f"{method} stores at least {smallest:,} parameters, "
            f"{100 * smallest / backbone:.4f} % of the backbone: over the budget of {budget:,}"
        )


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
