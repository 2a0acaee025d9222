"""Figures of runs: training curves, and scores against stored parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, groupby
from pathlib import Path
from textwrap import fill
from typing import Any

from unipeft_run.errors import UserError
from unipeft_run.report.cells import Spread
from unipeft_run.report.curves import LARGEST, Curve, is_drawable, read_curve, selection_metric
from unipeft_run.report.differences import as_mapping, find_differences
from unipeft_run.report.tables import Table
from unipeft_run.runs.printable import printable
from unipeft_run.runs.reader import RunRecord

WIDTH, HEIGHT = 4.2, 3.2  # inches of one panel
FORMATS = (".svg", ".png", ".pdf")
STYLES = ("-", "--", ":", "-.")
MARKERS = "osD^v<>PX*h"  # coprime with the 10 colours, so that no two points look the same
LONGEST = 120  # characters of a label


def draw_curves(runs: Sequence[RunRecord], file: Path) -> None:
    """Draw a row of panels per task and scale: training loss, validation score, learning rate.

    One line per configuration over the updates: the mean over its seeds, in a band of one standard
    deviation. Raises `UserError` if there is nothing to draw.
    """
    groups = [(name, list(group)) for name, group in groupby(sorted(runs, key=_order), _group_name)]
    if not groups:
        raise UserError("no run has a record yet")
    figure, panels = _make_panels(len(groups), 3, file)
    for row, (name, group) in zip(panels, groups, strict=True):
        cells, keys = _group_seeds(group), ("train/loss", selection_metric(group), "train/lr")
        labels = _label_cells(cells)
        for axes, key in zip(row, keys, strict=True):
            axes.set(title=_literal(name), xlabel="step", ylabel=_literal(key))
            for cell, label, look in zip(cells, labels, _looks(), strict=False):
                _draw_curve(axes, read_curve(cell, key), _literal(label), look)
        _add_legend(row[-1])
    _write(figure, file)


def _draw_curve(axes: Any, curve: Curve, label: str, look: dict[str, str]) -> None:
    marker = "o" if len(curve.steps) < 20 else ""
    axes.plot(curve.steps, curve.means, label=label, marker=marker, markersize=3, **look)
    if curve.has_band:
        pairs = list(zip(curve.means, curve.stds, strict=True))
        low, high = [m - s for m, s in pairs], [m + s for m, s in pairs]
        axes.fill_between(curve.steps, low, high, alpha=0.2, color=look["color"], linewidth=0)


def _group_seeds(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Group the runs of each configuration; a run with an incomplete one is alone."""
    cells: dict[str, list[RunRecord]] = {}
    for run in runs:
        try:
            key = f"{run.config.get('method')} {run.cell}"
        except (KeyError, TypeError, AttributeError, ValueError):
            key = str(run.folder)
        cells.setdefault(key, []).append(run)
    return list(cells.values())


def draw_shares(tables: Sequence[Table], file: Path) -> None:
    """Draw a panel per table: the score against the stored parameters, as in the paper's figure 2.

    Error bars are the standard deviation over the seeds; dashed lines are methods that store none.
    """
    figure, panels = _make_panels(len(tables), 1, file)
    for (axes,), table in zip(panels, tables, strict=True):
        metric = next(key for key, value in table.rows[0].items() if isinstance(value, Spread))
        axes.set_title(_literal(fill(printable(table.title, 3 * LONGEST), 56)), fontsize="medium")
        axes.set(xlabel="parameters stored %", ylabel=_literal(metric), xscale="log")
        for row, look, marker in zip(table.rows, _looks(), cycle(MARKERS), strict=False):
            score, stored, label = row.get(metric), row.get("stored %"), _literal(row["method"])
            if not (isinstance(score, Spread) and is_drawable(score.mean)):
                continue
            color = look["color"]
            if isinstance(stored, int | float) and 0 < stored < LARGEST:
                style = {"fmt": marker, "color": color, "label": label, "capsize": 2}
                axes.errorbar(stored, score.mean, yerr=score.std, **style)
            else:
                axes.axhline(score.mean, label=label, linestyle="--", color=color)
        _add_legend(axes)
    _write(figure, file)


def _literal(text: Any) -> str:
    """Return `text` with $ escaped, which matplotlib would parse as mathematics."""
    return str(text).replace("$", r"\$")


def _make_panels(rows: int, columns: int, file: Path) -> tuple[Any, Any]:
    """Make a figure and its [rows, columns] axes. Raises `UserError` for an unknown format."""
    if file.suffix not in FORMATS:
        names = ", ".join(FORMATS)
        raise UserError(f"--out {printable(file)}: the name of a figure ends in {names}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("figures need matplotlib: pip install 'unipeft[figures]'") from None
    figure = Figure((WIDTH * max(columns, 1.4), HEIGHT * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _add_legend(axes: Any) -> None:
    """Add a legend to the right of the panels; the figure grows, the panels keep their width."""
    position = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "frameon": False}
    axes.legend(**position, fontsize="x-small").set_in_layout(False)


def _write(figure: Any, file: Path) -> None:
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    metadata = {"Date": None} if file.suffix == ".svg" else None  # so that output is reproducible
    try:
        figure.savefig(
            file, dpi=150, metadata=metadata, bbox_inches="tight", bbox_extra_artists=legends
        )
    except OSError as error:
        raise UserError(f"{printable(file)} cannot be written: {error.strerror}") from None


def _looks() -> Iterator[dict[str, str]]:
    """Cycle through colours, then through line styles."""
    colors = [f"C{number}" for number in range(10)]
    return cycle({"color": color, "linestyle": style} for style in STYLES for color in colors)


def _group_name(run: RunRecord) -> str:
    """Return the task and its scale, as on the dashboards."""
    task = as_mapping(run.config.get("task")).get("name")
    return printable(f"{task}-{run.config.get('scale')}", LONGEST)


def _order(run: RunRecord) -> tuple[str, str, str]:
    return _group_name(run), str(run.config.get("method")), str(run.config.get("seed"))


def _label_cells(cells: Sequence[Sequence[RunRecord]]) -> list[str]:
    """Label each configuration by its method, its differences from others of it, and its seeds."""
    runs = [cell[0] for cell in cells]
    labels = [printable(run.config.get("method"), LONGEST) for run in runs]
    for method in dict.fromkeys(labels):
        same = [number for number, label in enumerate(labels) if label == method]
        configs = [runs[number].settings for number in same]
        differences = find_differences(configs, ("seed", "task.name"))
        for number, overrides in zip(same, differences, strict=True):
            seeds = f"({len(cells[number])} seeds)" * (len(cells[number]) > 1)
            labels[number] = " ".join(filter(None, (method, overrides, seeds)))
    return labels
