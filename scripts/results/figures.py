"""Figures 4 and 5 of the paper with the runs of the miniature, and the page of all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import archive
import matplotlib
from archive import Record
from grid import PRIMARY, cell_of
from matplotlib.figure import Figure

from unipeft_run.config.experiments import Cell as PublishedCell
from unipeft_run.config.experiments import read
from unipeft_run.report.html import render_page
from unipeft_run.runs.finished import finished_runs
from unipeft_run.runs.search import OUTPUTS

NAMES = {"rouge2": "ROUGE-2", "bleu_paper": "BLEU"}
ATTENTION, FEED_FORWARD = "tab:blue", "tab:red"
MARKERS = {"Prefix": "o", "Adapter": "s", "LoRA": "^", "PA": "D", "BitFit": "v"}
COLORS = {
    "Prefix": "tab:blue",
    "Adapter": "tab:orange",
    "LoRA": "tab:green",
    "BitFit": "tab:purple",
}

Runs = Mapping[str, Sequence[Record]]


def draw(runs: Runs, folder: Path) -> None:
    """Write results_figure4.svg and results_figure5.svg."""
    for name in ("figure4", "figure5"):
        experiment = read(name)
        assert experiment
        figure = Figure((9, 3.6), layout="constrained")
        panels = figure.subplots(1, len(experiment.metrics))
        for axes, task in zip(panels, experiment.metrics, strict=True):
            cells = [cell for cell in experiment.cells if cell.task == task]
            _draw_panel(axes, cells, runs, by_part=name == "figure5")
            axes.set(title=f"{task}, scale mini", xlabel="parameters stored, % of the backbone")
            axes.set(ylabel=f"test {NAMES[PRIMARY[task]]}", xscale="log")
        shown = [axes.get_legend_handles_labels() for axes in panels]
        entries = {label: handle for found in shown for handle, label in zip(*found, strict=True)}
        panels[-1].legend(entries.values(), entries.keys(), fontsize="x-small")
        with matplotlib.rc_context({"svg.hashsalt": name}):
            figure.savefig(folder / f"results_{name}.svg", metadata={"Date": None})


def _draw_panel(axes: Any, cells: Sequence[PublishedCell], runs: Runs, by_part: bool) -> None:
    """Draw a line per series over its sizes; full fine-tuning is a dashed line."""
    series: dict[str, list[PublishedCell]] = {}
    for cell in cells:
        series.setdefault(cell.row.partition(",")[0], []).append(cell)
    for name, members in series.items():
        found = [records for cell in members if (records := runs.get(cell_of(cell).name))]
        if not found:
            continue
        if name.startswith("Full"):
            score = fmean(_scores(found[0]))
            axes.axhline(score, color="black", linestyle="--", label="Full fine-tuning")
            continue
        kind = name.partition(" ")[0]
        color = (FEED_FORWARD if "ffn" in name else ATTENTION) if by_part else COLORS[kind]
        axes.errorbar(
            [records[0].scores["parameters/stored_percent"] for records in found],
            [fmean(_scores(records)) for records in found],
            yerr=[stdev(_scores(records)) if len(records) > 1 else 0.0 for records in found],
            label=name,
            color=color,
            marker=MARKERS[kind],
            capsize=2,
        )


def _scores(records: Sequence[Record]) -> list[float]:
    return [float(record.scores[record.scores["primary"]]) for record in records]


def render_html(records: Sequence[Record]) -> str:
    """Render the report page of all stored runs, without predictions."""
    with TemporaryDirectory() as folder, chdir(folder):
        archive.restore(records, OUTPUTS)
        runs, left_out = finished_runs([OUTPUTS])
        return render_page(runs, left_out, predictions=0, made="the runs of docs/results.md")
