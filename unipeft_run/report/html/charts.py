"""Line charts with bands, and scatter charts on a log axis, as SVG without a dependency.

Colours are classes (s0 to s7) that the page's style sheet defines for light and dark screens.
Beyond eight series, the line style tells them apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unipeft_run.report.curves import Curve, is_drawable
from unipeft_run.report.html.axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Scale,
    draw_axes,
    format_tick,
    linear,
    log_range,
    log_ticks,
    rounded,
    ticks,
    vertical,
)
from unipeft_run.report.html.markup import element, text
from unipeft_run.runs.printable import printable

COLORS, DASHES = 8, 3
RADIUS = 4.5
CHARACTER = 5.6  # width of a label's character
MOST_DOTS = 24  # points of a curve that are marked
LONGEST, LONGEST_ACROSS = 28, 48  # characters of a label
SHAPES = ((24, 0), (4, 45), (3, 0), (4, 0), (3, 180), (5, 0), (6, 0), (3, 90))  # corners, degrees
# places of a label relative to its point: right, down, anchor
SPOTS = (
    *((8, 4, "start"), (-8, 4, "end"), (0, -9, "middle"), (0, 17, "middle")),
    *((7, -7, "start"), (7, 15, "start"), (-7, -7, "end"), (-7, 15, "end")),
)

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Point:
    """One row of a ranking in a scatter chart. `x` None: a dashed line across the panel."""

    label: str
    x: float | None
    y: float
    std: float | None
    series: int


def line_chart(title: str, curves: Sequence[Curve]) -> str:
    """Draw curves over the steps, each in a band of one standard deviation."""
    drawn = [(number, curve) for number, curve in enumerate(curves) if curve.steps]
    if not drawn:
        return ""
    last = max(step for _, curve in drawn for step in curve.steps)
    ends = [end for _, curve in drawn for end in (*_bounds(curve, -1), *_bounds(curve, 1))]
    y_ticks = ticks(min(ends), max(ends))
    x, y = linear(0, last, LEFT, WIDTH - RIGHT), vertical(y_ticks)
    x_ticks = [(value, format_tick(value)) for value in ticks(0, last) if value <= last]
    body = [*draw_axes(x, y, x_ticks, y_ticks, "step")]
    body += [_series(number, "".join(_line(curve, x, y))) for number, curve in drawn]
    return _figure(title, body)


def _bounds(curve: Curve, sign: int) -> list[float]:
    """Return the upper (sign 1) or lower edge of the curve's band."""
    return [mean + sign * std for mean, std in zip(curve.means, curve.stds, strict=True)]


def _line(curve: Curve, x: Scale, y: Scale) -> Iterator[str]:
    places = [x(step) for step in curve.steps]
    if curve.has_band:
        upper, lower = (list(zip(places, map(y, _bounds(curve, s)), strict=True)) for s in (1, -1))
        yield f'<path class="band" d="{_path([*upper, *reversed(lower)])}Z"/>'
    points = list(zip(places, map(y, curve.means), strict=True))
    yield f'<path class="line" d="{_path(points)}"/>'
    if len(points) <= MOST_DOTS:
        values = zip(points, curve.steps, curve.means, curve.stds, strict=True)
        for (left, top), step, mean, std in values:
            spread = f" ± {format_tick(std)}" if std else ""
            hint = element("title", text(f"step {step}: {mean:.4g}{spread}"))
            yield element("circle", hint, class_="dot", cx=rounded(left), cy=rounded(top), r=2.6)


def scatter_chart(title: str, x_label: str, points: Sequence[Point]) -> str:
    """Draw scores with error bars over a logarithmic axis, labelled where there is room."""
    shown = [point for point in points if is_drawable(point.y)]
    if not shown:
        return ""
    low, high = log_range([point.x for point in shown if point.x is not None])
    x = linear(math.log(low), math.log(high), LEFT, WIDTH - RIGHT)
    ends = [point.y + sign * (point.std or 0) for point in shown for sign in (-1, 1)]
    y_ticks = ticks(min(ends), max(ends))
    y = vertical(y_ticks)
    x_ticks = [(math.log(value), format_tick(value)) for value in log_ticks(low, high)]
    places = [(x(math.log(point.x)), y(point.y)) for point in shown if point.x is not None]
    placed = [(a - RADIUS, b - RADIUS, a + RADIUS, b + RADIUS) for a, b in places]
    body = [*draw_axes(x, y, x_ticks, y_ticks, x_label)]
    body += [_series(point.series, "".join(_mark(point, x, y, placed))) for point in shown]
    return _figure(title, body)


def _mark(point: Point, x: Scale, y: Scale, placed: list[Box]) -> Iterator[str]:
    top = y(point.y)
    spread = f" ± {point.std:.2f}" if point.std is not None else ""
    hint = element("title", text(f"{point.label}: {point.y:.2f}{spread}"))
    if point.x is None:
        yield f'<path class="across" d="M{LEFT} {rounded(top)}H{WIDTH - RIGHT}">{hint}</path>'
        spots = [(float(WIDTH - RIGHT), top + down, "end") for down in (-4, 12)]
    else:
        left = x(math.log(point.x))
        if point.std:
            low, high = (rounded(y(point.y + sign * point.std)) for sign in (-1, 1))
            yield f'<path class="bar" d="M{rounded(left)} {low}V{high}"/>'
        yield f'<path class="mark" d="{_shape(point.series, left, top)}">{hint}</path>'
        spots = [(left + right, top + down, anchor) for right, down, anchor in SPOTS]
    longest = LONGEST_ACROSS if point.x is None else LONGEST
    yield _label(printable(point.label, longest), spots, placed)


def _label(label: str, spots: Sequence[tuple[float, float, str]], placed: list[Box]) -> str:
    """Place a label where it covers nothing; return nothing if there is no room."""
    width = CHARACTER * len(label)
    for x, y, anchor in spots:
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        box = (left, y - 10, left + width, y + 3)
        inside = left >= LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM
        if inside and not any(_overlap(box, other) for other in placed):
            placed.append(box)
            place = {"x": rounded(x), "y": rounded(y), "text_anchor": anchor}
            return element("text", text(label), class_="label", **place)
    return ""


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _shape(series: int, x: float, y: float) -> str:
    """Return the path of a series' marker: a polygon, rounder or turned for each series."""
    corners, turn = SHAPES[series % len(SHAPES)]
    radius = RADIUS * (1.25 if corners < 6 else 1)
    angles = (math.radians(turn - 90 + 360 * n / corners) for n in range(corners))
    return _path([(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]) + "Z"


def _series(number: int, content: str) -> str:
    classes = f"series s{number % COLORS} d{number // COLORS % DASHES}"
    return element("g", content, class_=classes, data_series=number)


def _figure(title: str, body: Sequence[str]) -> str:
    label = text(title)
    start = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    content = element("figcaption", label) + start + "".join(body) + "</svg>"
    return element("figure", content, class_="chart")


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{rounded(x)} {rounded(y)}" for x, y in points)
