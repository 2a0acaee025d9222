"""Tables and small elements as HTML. Text from run folders must pass through `text`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from unipeft_run.report.tables import Row, Table
from unipeft_run.report.values import format_value, is_numeric, sort_value
from unipeft_run.runs.printable import printable

LONGEST = 2000  # characters of a text in a table


def text(value: object) -> str:
    """Escape `value` for HTML, on one line and printable."""
    return escape(printable(value, LONGEST), quote=True)


def element(tag: str, content: str, **attributes: object) -> str:
    """Return an element around `content`, which is HTML; attribute values are escaped."""
    pairs = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
    shown = "".join(f' {name}="{text(value)}"' for name, value in pairs if value is not None)
    return f"<{tag}{shown}>{content}</{tag}>"


def table(content: Table, *, sortable: bool = True, swatches: int = 0) -> str:
    """Render a table in a scrolling box, with its notes; header cells are buttons that sort.

    `swatches`: how many rows to mark with the colour of their series in the charts.
    """
    head = "".join(_header(content, name, sortable) for name in content.columns)
    series = [*range(swatches), *[None] * (len(content.rows) - swatches)]
    pairs = zip(content.rows, series, strict=True)
    rows = "".join(_row(content, row, number) for row, number in pairs)
    caption = element("caption", text(content.title), class_="hidden")
    grid = f"{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    box = element("div", element("table", grid), class_="scroll", role="region", tabindex=0,
                  aria_label=content.title)  # fmt: skip
    return box + notes(content.notes)


def notes(lines: Sequence[str]) -> str:
    """Render notes as a list; nothing without notes."""
    items = "".join(element("li", text(line).replace("+-", "±", 1)) for line in lines)
    return element("ul", items, class_="notes") if items else ""


def _header(content: Table, name: str, sortable: bool) -> str:
    label = text(name)
    inner = element("button", label, type="button") if sortable else label
    return element("th", inner, scope="col", class_="n" if is_numeric(content, name) else None)


def _row(content: Table, row: Row, series: int | None) -> str:
    first, *names = content.columns
    swatch = swatch_of(series) if series is not None else ""
    cells = [element("th", swatch + text(row.get(first) or ""), scope="row")]
    return element("tr", "".join([*cells, *(_cell(content, row, name) for name in names)]))


def _cell(content: Table, row: Row, name: str) -> str:
    value = row.get(name)
    shown = escape(format_value(name, value, "±"))
    if value is not None and not isinstance(value, str):
        shown = shown.replace("-", "\N{MINUS SIGN}")
    is_number = is_numeric(content, name)
    return element("td", shown, class_="n" if is_number else None, data_v=sort_value(value))


def swatch_of(series: int) -> str:
    """Return the coloured mark of a series."""
    return f'<i class="swatch s{series % 8}" aria-hidden="true"></i>'


def section(title: str, anchor: str, parts: Iterable[str], note: str = "") -> str:
    """Render a titled part of the page."""
    lead = element("p", text(note), class_="lead") if note else ""
    return element("section", element("h2", text(title)) + lead + "".join(parts), id=anchor)


def folded(title: str, content: str) -> str:
    """Render content that is collapsed until it is opened."""
    return f"<details><summary>{text(title)}</summary>{content}</details>"


def commands(lines: Sequence[str]) -> Iterator[str]:
    """Render shell commands, each selected as a whole by one click."""
    for line in lines:
        yield element("pre", element("code", text(line)), class_="command", tabindex=0)
