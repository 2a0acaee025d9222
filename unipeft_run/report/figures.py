"""Runs as figures: the curves of training, and what methods reach against what they store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, groupby
from pathlib import Path
from textwrap import fill
from typing import Any

from unipeft_run.errors import UserError
from unipeft_run.report.differences import differences
from unipeft_run.report.tables import Spread, Table
from unipeft_run.runs.registry import Run
from unipeft_run.tracking.jsonl import records

WIDTH, HEIGHT = 4.2, 3.2  # inches of one panel
FORMATS = (".svg", ".png", ".pdf")
STYLES = ("-", "--", ":", "-.")
MARKERS = "osD^v<>PX*h"  # one more than colours, so that no two points look the same


def draw_curves(runs: Sequence[Run], file: Path) -> None:
    """A row for each task and scale: training loss, what validation selects by, learning rate.

    A line for each run, over the updates. Raises `UserError` where there is nothing to draw.
    """
    groups = [(name, list(group)) for name, group in groupby(sorted(runs, key=_order), _group)]
    if not groups:
        raise UserError("no run has a record yet")
    figure, panels = _panels(len(groups), 3, file)
    for row, (name, group) in zip(panels, groups, strict=True):
        keys = ("train/loss", _selected(group), "train/lr")
        for axes, key in zip(row, keys, strict=True):
            axes.set(title=name, xlabel="step", ylabel=key)
            for run, label, look in zip(group, _labels(group), _looks(), strict=False):
                steps, values = _curve(run, key)
                marker = "o" if len(steps) < 20 else ""
                axes.plot(steps, values, label=label, marker=marker, markersize=3, **look)
        _legend(row[-1])
    _write(figure, file)


def _curve(run: Run, key: str) -> tuple[list[int], list[float]]:
    """Steps, and the values of `key` at them."""
    found = [r for r in records(run.folder / "train.jsonl") if r.get(key) is not None]
    return [r["step"] for r in found], [r[key] for r in found]


def draw_shares(tables: Sequence[Table], file: Path) -> None:
    """A panel for each table: the metric against the parameters stored, as figure 2 of the paper.

    Bars are the standard deviation over the seeds; dashed, what needs no training.
    """
    figure, panels = _panels(len(tables), 1, file)
    for (axes,), table in zip(panels, tables, strict=True):
        metric = next(key for key, value in table.rows[0].items() if isinstance(value, Spread))
        share = "stored %"
        axes.set_title(fill(table.title, 56), fontsize="medium")
        axes.set(xlabel=f"parameters {share}", ylabel=metric, xscale="log")
        for row, look, marker in zip(table.rows, _looks(), cycle(MARKERS), strict=False):
            reached, stored = row.get(metric), row.get(share)
            if not isinstance(reached, Spread):
                continue
            color = look["color"]
            if isinstance(stored, int | float) and stored > 0:
                points = {"fmt": marker, "color": color, "label": row["method"], "capsize": 2}
                axes.errorbar(stored, reached.mean, yerr=reached.std, **points)
            else:
                axes.axhline(reached.mean, label=row["method"], linestyle="--", color=color)
        _legend(axes)
    _write(figure, file)


def _panels(rows: int, columns: int, file: Path) -> tuple[Any, Any]:
    """A figure and its [rows, columns] axes. Raises `UserError` where it could not be written."""
    if file.suffix not in FORMATS:
        raise UserError(f"{file} is no figure; its name ends in {', '.join(FORMATS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("figures need matplotlib: pip install 'unipeft[figures]'") from None
    figure = Figure((WIDTH * max(columns, 1.4), HEIGHT * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _legend(axes: Any) -> None:
    """To the right of the panels, which keep their width: the figure grows as it is written."""
    beside = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "frameon": False}
    axes.legend(**beside, fontsize="x-small").set_in_layout(False)


def _write(figure: Any, file: Path) -> None:
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    dated = {"Date": None} if file.suffix == ".svg" else None  # the same runs, the same bytes
    try:
        figure.savefig(
            file, dpi=150, metadata=dated, bbox_inches="tight", bbox_extra_artists=legends
        )
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from None


def _looks() -> Any:
    """Colours, and another kind of line when they have all been had."""
    colors = [f"C{number}" for number in range(10)]
    return cycle({"color": color, "linestyle": style} for style in STYLES for color in colors)


def _group(run: Run) -> str:
    """As on the dashboards: the task and its scale."""
    task: Mapping[str, Any] = run.config.get("task") or {}
    return f"{task.get('name')}-{run.config.get('scale')}"


def _order(run: Run) -> tuple[str, str, str]:
    return _group(run), str(run.config.get("method")), str(run.config.get("seed"))


def _selected(runs: Sequence[Run]) -> str:
    """The metric of the task where validation has it, else the loss."""
    names = [f"validation/{run.metric[0].partition('/')[2]}" for run in runs if run.metric]
    there = [name for name in names if any(_curve(run, name)[0] for run in runs)]
    return there[0] if there else "validation/loss"


def _labels(runs: Sequence[Run]) -> list[str]:
    """The method, what sets a run apart from others of it, and the seed where there are several."""
    several = len({run.config.get("seed") for run in runs}) > 1
    labels = [str(run.config.get("method")) for run in runs]
    for method in dict.fromkeys(labels):
        alike = [number for number, label in enumerate(labels) if label == method]
        apart = differences([runs[number].config for number in alike], ("seed", "task.name"))
        for number, words in zip(alike, apart, strict=True):
            seed = f"seed={runs[number].config.get('seed')}" if several else ""
            labels[number] = " ".join(filter(None, (method, words, seed)))
    return labels
