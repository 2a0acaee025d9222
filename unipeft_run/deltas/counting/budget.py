"""Find bottleneck sizes that fit a budget of stored parameters.

The stored count is a linear function of the bottlenecks, whatever the form. Counts at a few sizes
determine the function, and the count at the solution is checked against it. Some forms take
multiples of a number only; sizes are counted in such units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import gcd

from unipeft_run.config import RunConfig, check_config, compose, resolve
from unipeft_run.config.types import MOST
from unipeft_run.deltas.counting.counts import counts
from unipeft_run.errors import UserError

SPLITS = (0.1, 0.25, 0.5, 0.75, 0.9)  # fractions of the budget for the first slot


@dataclass(frozen=True)
class LinearCount:
    """stored(sizes) = fixed + sum of per_unit * size over the slots, sizes in units."""

    slots: tuple[str, ...]
    fixed: int
    per_unit: tuple[int, ...]

    def stored(self, sizes: Sequence[int]) -> int:
        """Return the stored count at `sizes`, in units."""
        return self.fixed + sum(a * n for a, n in zip(self.per_unit, sizes, strict=True))


@dataclass(frozen=True)
class Solution:
    """Bottlenecks within a budget of stored parameters, the closest ones first.

    `sizes` and `count` are in units; `units` are the units of the slots.
    """

    config: RunConfig
    backbone: int
    budget: int
    count: LinearCount
    sizes: list[tuple[int, ...]]
    units: tuple[int, ...]

    def bottlenecks(self, sizes: Sequence[int]) -> list[int]:
        """Convert sizes from units to bottlenecks."""
        return [size * unit for size, unit in zip(sizes, self.units, strict=True)]


def solve(overrides: Sequence[str], budget: str) -> Solution:
    """Find bottlenecks for a budget such as 1% or 500000. Raises UserError."""
    config = check_config(compose(overrides))
    sized = {name: slot.bottleneck for name, slot in config.slots().items() if slot.bottleneck}
    slots = tuple(sized)
    if not slots:
        raise UserError(f"method {config.method} has no bottleneck to solve for")
    if len(slots) > 2:
        raise UserError(f"{', '.join(slots)} are filled; solving works for one slot or two")
    backbone = counts(config)["backbone"]
    limit = _parse_budget(budget, backbone)
    units = find_units(overrides, sized)
    count = measure(overrides, slots, units)
    _check_solvable(count, units, config.method, limit, backbone)
    own = [max(1, size // unit) for size, unit in zip(sized.values(), units, strict=True)]
    found = Solution(config, backbone, limit, count, find_candidates(count, limit, own), units)
    first = found.sizes[0]
    assert count_at(overrides, slots, found.bottlenecks(first)) == count.stored(first), "not linear"
    return found


def _check_solvable(
    count: LinearCount, units: Sequence[int], method: str, budget: int, backbone: int
) -> None:
    for slot, per_unit in zip(count.slots, count.per_unit, strict=True):
        if per_unit == 0:
            raise UserError(f"the stored count of slot {slot} does not depend on {slot}.bottleneck")
    smallest = count.stored([1] * len(count.slots))
    if budget < smallest:
        raise UserError(
            f"{method} stores at least {smallest:,} parameters, "
            f"{100 * smallest / backbone:.4f} % of the backbone: over the budget of {budget:,}"
        )
    steps = (a * (MOST // unit) for a, unit in zip(count.per_unit, units, strict=True))
    largest = count.fixed + min(steps)
    if budget > largest:
        raise UserError(
            f"budget={budget:,}: too large for {method}; a bottleneck of {MOST:,}, the largest, "
            f"stores {largest:,} parameters"
        )


def _parse_budget(text: str, backbone: int) -> int:
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise UserError(f"budget={text}: must be a share, as in 1%, or a parameter count")
    return int(backbone * number / 100 if text.endswith("%") else number)


def find_units(overrides: Sequence[str], sized: Mapping[str, int]) -> tuple[int, ...]:
    """Return the smallest bottleneck of each slot that its form takes; all multiples are legal.

    `sized`: the slots with their own bottlenecks, which are legal.
    """

    def smallest(slot: str) -> int:
        for size in range(1, sized[slot]):
            with suppress(UserError):
                count_at(overrides, list(sized), [*{**sized, slot: size}.values()])
                return size
        return sized[slot]

    return tuple(map(smallest, sized))


def measure(
    overrides: Sequence[str], slots: tuple[str, ...], units: Sequence[int] | None = None
) -> LinearCount:
    """Determine the stored count as a function of the slots' bottlenecks, in `units`."""
    units = units or [1] * len(slots)

    def stored(sizes: Sequence[int]) -> int:
        return count_at(overrides, slots, [n * unit for n, unit in zip(sizes, units, strict=True)])

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
    nearest = _find_nearest(line, room, share)
    splits = [_split(line, room, wanted) for wanted in (share, *SPLITS)]
    return list(dict.fromkeys([nearest, *splits]))


def _find_nearest(line: LinearCount, room: int, share: float) -> tuple[int, int]:
    """Find the bottlenecks that store most within `room`; of several, those nearest to `share`."""
    first, second = line.per_unit
    most, period = (room - second) // first, second // gcd(first, second)
    best = min(range(1, min(most, period) + 1), key=lambda n: (room - first * n) % second)
    wanted = round((share * room / first - best) / period)
    near = (best + period * max(0, wanted + step) for step in (-1, 0, 1))
    sizes = [n for n in near if n <= most] or [best + (most - best) // period * period]
    size = min(sizes, key=lambda n: abs(first * n / room - share))
    return size, (room - first * size) // second


def _split(line: LinearCount, room: int, share: float) -> tuple[int, int]:
    """Find the largest bottlenecks within `room` of which the first takes about this share."""
    first, second = line.per_unit
    most = (room - second) // first
    size = min(max(1, round(share * room / first)), most)
    return size, (room - first * size) // second
