"""The runs behind docs/results.md: trials of learning rates, and the cells of the paper's tables.

A cell is one configuration, run with every seed; tables share cells. Both lists of runs are
experiments in conf/experiment: `results_rates` and `results_grid`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from unipeft_run.config import PlannedRun, compose, plan, resolve
from unipeft_run.config.experiments import Cell as PublishedCell
from unipeft_run.config.experiments import Experiment, expand, key_values, read

TABLES = ("table2", "table3", "table4", "table5", "table6", "figure4", "figure5")
PRIMARY = {"xsum": "rouge2", "wmt16_en_ro": "bleu_paper", "sst2": "accuracy", "mnli": "accuracy"}
SEEDS, TRIAL_SEED = (42, 2, 4), 1
FACTORS = (0.3, 1.0, 3.0)  # of the learning rate in conf/preset/mini.yaml
CONF = Path(__file__).parents[2] / "conf" / "experiment"
GRID, RATES = "results_grid", "results_rates"
STEPS = {"xsum": 200, "wmt16_en_ro": 200, "sst2": 240, "mnli": 600}
TRIAL_STEPS = {"xsum": 100, "wmt16_en_ro": 100, "sst2": 100, "mnli": 200}
EVALUATIONS = 2  # during a run, the last one at its end
PINNED = "compute.products=torch"  # a choice by a benchmark could differ between two runs
NO_MLP = "Prefix without MLP, l=200"
ZERO_INIT = "PA (ffn), r=512, zero initialisation"
LORA_S2 = "LoRA (ffn), r=102, s=2"
EXTRA = {  # cells of claims that no table has
    NO_MLP: "method=prefix_nomlp",
    ZERO_INIT: "method=parallel_ffn form@ffn=bottleneck_zero",
    LORA_S2: "method=lora_ffn",
}
EXTRA_TASKS = ("xsum", "wmt16_en_ro")

Rates = Mapping[tuple[str, str], float]  # task and method -> learning rate


@dataclass(frozen=True)
class Cell:
    """A configuration, named by its overrides without those of the budget and the learning rate."""

    name: str

    @property
    def overrides(self) -> list[str]:
        """The overrides in the name."""
        return self.name.split()

    @property
    def task(self) -> str:
        """The name of the task."""
        return key_values(self.overrides)["task"]

    @property
    def method(self) -> str:
        """The name of the method."""
        return key_values(self.overrides)["method"]


def read_experiments() -> list[Experiment]:
    """Read the paper's tables and figures, in the paper's order."""
    found = [read(name) for name in TABLES]
    return [experiment for experiment in found if experiment]


def cell_of(published: PublishedCell) -> Cell:
    """Return the miniature's cell for a published row."""
    return Cell(" ".join(published.overrides["mini"]))


def extra_cell(row: str, task: str) -> Cell:
    """Return a cell of `EXTRA`."""
    return Cell(f"task={task} {EXTRA[row]}")


def list_cells() -> list[Cell]:
    """List every cell once."""
    cells = [cell_of(row) for experiment in read_experiments() for row in experiment.cells]
    return list(
        dict.fromkeys([*cells, *(extra_cell(row, t) for t in EXTRA_TASKS for row in EXTRA)])
    )


def list_trials() -> Iterator[tuple[Cell, float]]:
    """Yield every trial: a method of a task, at its size in conf/preset/mini.yaml, and a rate."""
    names = (f"task={cell.task} method={cell.method}" for cell in list_cells())
    for name in dict.fromkeys(names):
        cell = Cell(name)
        for factor in FACTORS:
            yield cell, float(f"{_default_rate(cell) * factor:.2g}")


@cache
def _default_rate(cell: Cell) -> float:
    return resolve(compose([*cell.overrides, "scale=mini"])).optim.lr


def write_trials(file: Path = CONF / f"{RATES}.yaml") -> None:
    """Write the trials as an experiment."""
    cells = [
        _entry(
            f"{cell.name} optim.lr={rate:g}",
            cell,
            rate,
            TRIAL_STEPS[cell.task],
            1,
            ["limit.test=8"],
        )
        for cell, rate in list_trials()
    ]
    _write(file, "Trials of learning rates, on the validation split; docs/results.md", cells)


def write_cells(rates: Rates, file: Path = CONF / f"{GRID}.yaml") -> None:
    """Write the cells as an experiment."""
    cells = [
        _entry(cell.name, cell, rates[cell.task, cell.method], STEPS[cell.task], EVALUATIONS)
        for cell in list_cells()
    ]
    _write(file, "The paper's tables and figures in miniature; docs/results.md", cells)


def _entry(
    row: str, cell: Cell, rate: float, steps: int, evaluations: int, more: Sequence[str] = ()
) -> dict[str, object]:
    budget = [f"recipe.max_steps={steps}", f"recipe.eval_every={steps // evaluations}", *more]
    return {"row": row, "run": cell.overrides, "mini": [f"optim.lr={rate:g}", *budget, PINNED]}


def _write(file: Path, title: str, cells: Sequence[Mapping[str, object]]) -> None:
    head = "# Written by scripts/results\n"
    content = {"title": title, "cells": list(cells)}
    text = yaml.safe_dump(content, sort_keys=False, width=110, default_flow_style=None)
    file.write_text(head + text, encoding="utf-8")


def plan_runs(
    experiment: str, seeds: Sequence[int], output: Path
) -> Iterator[tuple[str, PlannedRun, list[str]]]:
    """Yield every run of an experiment: the name of its cell, the run, its overrides."""
    shared = [f"experiment={experiment}", "scale=mini", f"output={output}", "tracking.wandb=null"]
    for seed in seeds:
        for cell, overrides in expand([*shared, f"seed={seed}"]):
            yield cell, plan(compose(overrides)), overrides
