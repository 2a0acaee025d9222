"""Assemble the page: a section per group of runs, the paper's tables, predictions."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from string import Template

from unipeft_run.config.experiments import Experiment
from unipeft_run.report.cells import Cell, Group, Spread, group_runs
from unipeft_run.report.comparison import compare_cells
from unipeft_run.report.curves import read_curve, selection_metric, thin
from unipeft_run.report.html import charts
from unipeft_run.report.html.markup import (
    commands,
    element,
    folded,
    section,
    swatch_of,
    table,
    text,
)
from unipeft_run.report.html.payload import collect_predictions, encode_json
from unipeft_run.report.parameters import tabulate_parameters, tabulate_settings
from unipeft_run.report.published import PaperTable, find_tables
from unipeft_run.report.tables import Row, Table, make_table
from unipeft_run.runs.reader import RunRecord

POINTS = 120  # of a curve
SHOWN = 8  # series that charts show at first; the legend adds others


def render_page(
    runs: Sequence[RunRecord],
    left_out: Sequence[str] = (),
    experiment: Experiment | None = None,
    predictions: int = 100,
    made: str | None = None,
) -> str:
    """Render the page of finished `runs`.

    `left_out`: a line per run that is not finished. `experiment`: the published table to compare
    with; by default every table of which `runs` have a row. `predictions`: the number embedded of
    each run. `made`: the line below the title; by default the date and the version of unipeft.
    """
    groups = group_runs(runs)
    found = collect_predictions(groups, predictions)
    parts = [_render_group(number, group) for number, group in enumerate(groups)]
    parts += _render_paper(find_tables(runs, experiment))
    parts += _render_predictions(found, predictions)
    parts += _render_left_out(left_out)
    return _fill(_header(runs, groups, made), "".join(parts), encode_json(found))


def _fill(header: str, body: str, payload: str) -> str:
    """Put the parts into the template. Its policy allows only its own script and style, by hash."""
    assets = files(__package__) / "assets"
    template, style, script = (
        (assets / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    )
    return Template(template).substitute(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        header=header,
        body=body,
        payload=payload,
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _header(runs: Sequence[RunRecord], groups: Sequence[Group], made: str | None) -> str:
    counts = {
        "run": len(runs),
        "configuration": sum(len(group.cells) for group in groups),
        "task": len({group.task for group in groups}),
    }
    tiles = [_tile(f"{count:,}", name + "s" * (count != 1)) for name, count in counts.items()]
    for group in groups[:3]:
        best = group.cells[0]
        if best.score:
            score = f"{best.score.mean:.2f}"
            tiles.append(_tile(score, f"{group.task} {group.primary}, {best.label}"))
    made = made or f"{datetime.now():%d %B %Y, %H:%M}, unipeft {version('unipeft')}"
    title = f"<h1>unipeft report</h1><p class='lead'>{text(made)}</p>"
    return f"{title}<div class='tiles'>{''.join(tiles)}</div>{_navigation(groups)}"


def _navigation(groups: Sequence[Group]) -> str:
    links = [(f"#g{number}", group.title) for number, group in enumerate(groups)]
    links += [("#paper", "The paper's tables"), ("#predictions", "Predictions")]
    anchors = "".join(element("a", text(name), href=anchor) for anchor, name in links)
    return f"<nav aria-label='Sections'>{anchors}</nav>"


def _tile(value: str, name: str) -> str:
    return f"<div class='tile'><b>{text(value)}</b><span>{text(name)}</span></div>"


def _render_group(number: int, group: Group) -> str:
    ranked = make_table(group)
    tests = compare_cells(group)
    parts = [
        table(ranked, swatches=len(group.cells)),
        _render_charts(group, ranked),
        "<h3>Significance</h3>",
        table(replace(tests, title="Significance against the best")) if tests.rows else "",
        "" if tests.rows else element("p", text("; ".join(tests.notes)), class_="lead"),
        folded("Parameters per site", table(tabulate_parameters(group))),
        folded("Configuration differences", table(tabulate_settings(group), sortable=False)),
    ]
    return section(group.title, f"g{number}", parts)


def _render_charts(group: Group, ranked: Table) -> str:
    metric = selection_metric(group.runs)
    keys = {metric: f"{metric} over training", "train/loss": "training loss"}
    drawn = [
        charts.line_chart(title, [thin(read_curve(cell.runs, key), POINTS) for cell in group.cells])
        for key, title in keys.items()
    ]
    points = list(_make_points(group, ranked))
    title = f"test {group.primary} against stored parameters"
    drawn.append(charts.scatter_chart(title, "parameters stored, % of the backbone (log)", points))
    legend = "".join(_legend_entry(n, cell) for n, cell in enumerate(group.cells))
    bands = "Lines are means over seeds; bands and bars are one standard deviation (n \u2212 1)."
    return (
        f"<div class='figures'><div class='legend' role='group' aria-label='Configurations shown'>"
        f"{legend}</div><div class='charts'>{''.join(drawn)}</div>"
        f"<p class='lead'>{bands} A label in the legend shows or hides its series.</p></div>"
    )


def _make_points(group: Group, ranked: Table) -> Iterator[charts.Point]:
    """Yield a point per row of the ranking; rows that store nothing have no place on the axis."""
    for number, row in enumerate(ranked.rows):
        score, stored = row.get(group.primary), row.get("stored %")
        share = stored if isinstance(stored, float) and stored > 0 else None
        if isinstance(score, Spread):
            yield charts.Point(str(row["method"]), share, score.mean, score.std, number)


def _legend_entry(number: int, cell: Cell) -> str:
    seeds = f" ({len(cell.runs)} seeds)" * (len(cell.runs) > 1)
    return element(
        "button",
        swatch_of(number) + text(f"{cell.label}{seeds}"),
        type="button",
        data_series=number,
        aria_pressed="true" if number < SHOWN else "false",
    )


def _render_paper(tables: Sequence[PaperTable]) -> Iterator[str]:
    parts = []
    for found in tables:
        parts += [f"<h3>{text(found.table.title)}</h3>", table(found.table)]
        if found.missing:
            number = len(found.missing)
            count = f"Commands for cells without a run with the same settings: {number}"
            shown = [f"{command}  # {row}" for row, command in found.missing.items()]
            parts.append(folded(count, "".join(commands(shown))))
    empty = "None of these runs matches a row of the paper's tables."
    yield section("The paper's tables beside ours", "paper", parts, "" if parts else empty)


def _render_predictions(found: Sequence[Mapping[str, object]], limit: int) -> Iterator[str]:
    lead = (
        f"The first {limit:,} test predictions of every run, texts cut after 1,000 characters; the "
        "run folders hold all of them. Words that only one of the two runs wrote are marked."
    )
    if not found:
        lead = "No run here stores test predictions." if limit else "Left out: --predictions 0."
    viewer = "<div id='viewer'><noscript>This part needs JavaScript.</noscript></div>"
    yield section("Predictions side by side", "predictions", [viewer] if found else [], lead)


def _render_left_out(lines: Sequence[str]) -> Iterator[str]:
    if lines:
        rows: list[Row] = [
            dict(zip(("run", "reason"), line.split(": ", 1), strict=False)) for line in lines
        ]
        yield section("Runs left out", "left-out", [table(Table("Runs left out", {}, rows))])
