"""Tables of a group's configurations: parameters per site, and settings that differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unipeft_run.report.cells import Cell, Group
from unipeft_run.report.differences import tabulate_differences
from unipeft_run.report.tables import Row, Table
from unipeft_run.runs.printable import printable
from unipeft_run.runs.reader import is_number
from unipeft_run.runs.reading import UnreadableFile, read_json

TEXTS, COUNTS = ("slot", "representation"), ("sites", "trained", "stored")


def tabulate_parameters(group: Group) -> Table:
    """Tabulate the parameters of every site, from the parameters.json of each cell's first run."""
    rows = [row for cell in group.cells for row in _rows(cell)]
    missing = [] if rows else ["no run has a readable parameters.json"]
    return Table(f"Parameters per site: {group.title}", group.facts, rows, missing)


def _rows(cell: Cell) -> Iterator[Row]:
    try:
        content = read_json(cell.runs[0].folder / "parameters.json")
    except UnreadableFile:
        return
    sites = content.get("sites")
    for site in sites if isinstance(sites, list) else []:
        if isinstance(site, dict):
            yield {"method": cell.label, **_row(site)}


def _row(site: dict[str, Any]) -> Row:
    texts: Row = {name: printable(site.get(name, ""), 60) for name in TEXTS}
    counts: Row = {name: int(site[name]) for name in COUNTS if is_number(site.get(name))}
    share = site.get("stored_percent")
    known = float(share) if share is not None and is_number(share) else None
    return {**texts, **counts, "stored %": known}


def tabulate_settings(group: Group) -> Table:
    """Tabulate the settings that differ between cells: a row per key, a column per cell."""
    differences = tabulate_differences([cell.runs[0].settings for cell in group.cells])
    keys = dict.fromkeys(key for values in differences for key in values)
    labels = [cell.label for cell in group.cells]
    cells = list(zip(labels, differences, strict=True))
    rows: list[Row] = [
        {"setting": key, **{label: values.get(key, "") for label, values in cells}} for key in keys
    ]
    notes = [] if rows else ["all configurations have the same settings"]
    return Table(f"Configuration differences: {group.title}", group.facts, rows, notes)
