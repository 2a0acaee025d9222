"""Axes of the page's charts: their size, scales, ticks and grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from unipeft_run.report.html.markup import text

WIDTH, HEIGHT = 440, 290  # of a chart, in the units of its view box
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 42  # margins

Scale = Callable[[float], float]


def draw_axes(
    x: Scale, y: Scale, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[float], x_label: str
) -> Iterator[str]:
    """Yield the grid, the ticks with their labels, and the name of the horizontal axis."""
    base = HEIGHT - BOTTOM
    for value in y_ticks:
        yield f'<path class="grid" d="M{LEFT} {rounded(y(value))}H{WIDTH - RIGHT}"/>'
        yield _write(LEFT - 7, y(value) + 4, "end", format_tick(value))
    for place, label in x_ticks:
        yield f'<path class="axis" d="M{rounded(x(place))} {base}v4"/>'
        yield _write(x(place), base + 17, "middle", label)
    yield f'<path class="axis" d="M{LEFT} {base}H{WIDTH - RIGHT}"/>'
    yield _write((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "middle", text(x_label))


def _write(x: float, y: float, anchor: str, label: str) -> str:
    return f'<text x="{rounded(x)}" y="{rounded(y)}" text-anchor="{anchor}">{label}</text>'


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers whose first and last enclose the values."""
    if not high - low > 1e-9 * max(abs(low), abs(high), 1e-30):
        room = 0.5 * max(1.0, abs(high))
        low, high = low - room, high + room
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_range(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a log axis with room around the values: at least a decade."""
    low, high = (min(values) / 1.6, max(values) * 1.9) if values else (0.1, 100.0)
    spare = max(1.0, math.sqrt(10 * low / high))
    return low / spare, high * spare


def log_ticks(low: float, high: float) -> list[float]:
    """Return the round numbers between the ends of a log axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) < 5 else (1,)
    values = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in values if low <= value <= high]


def linear(low: float, high: float, first: float, last: float) -> Scale:
    """Return the scale that maps low to first, and high to last."""
    width = high - low or 1.0
    return lambda value: first + (value - low) / width * (last - first)


def vertical(values: Sequence[float]) -> Scale:
    """Return the vertical scale between the first and the last tick."""
    return linear(values[0], values[-1], HEIGHT - BOTTOM, TOP)


def rounded(value: float) -> str:
    """Write a coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def format_tick(value: float) -> str:
    """Write a number briefly: 12,000 and 0.05, not 5e-02."""
    value = 0.0 if abs(value) < 1e-12 else value
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.4f}".rstrip("0").rstrip(".").replace("-", "\N{MINUS SIGN}")
