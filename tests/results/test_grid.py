"""The cells and trials behind docs/results.md, and the experiments that run them."""

from __future__ import annotations

from pathlib import Path

import grid
import pytest
from archive import read_records
from claims import CLAIMS, list_claimed
from rates import choose_rates, read_trials
from repeat import choose, table_names

from unipeft_run.config import plan
from unipeft_run.config.compose import compose
from unipeft_run.config.experiments import read

DATA = Path(__file__).parents[2] / "docs" / "results"
TRIALS, RUNS = read_records(DATA / "trials.parquet"), read_records(DATA / "runs.parquet")


def test_every_row_of_the_tables_and_claims_is_a_cell() -> None:
    cells = set(grid.list_cells())
    rows = [cell for experiment in grid.read_experiments() for cell in experiment.cells]
    assert {grid.cell_of(row) for row in rows} | set(list_claimed()) <= cells
    assert {cell.task for cell in cells} == set(grid.STEPS) == set(grid.TRIAL_STEPS)


def test_printed_differences_are_the_papers() -> None:
    printed = {
        (pair.first, pair.second, pair.task): pair.printed
        for claim in CLAIMS
        for pair in claim.pairs
    }
    assert printed["PA (ffn), r=200", "SA (ffn), r=200", "xsum"] == pytest.approx(0.68)
    assert printed["Scaled PA, r=512, s=4", "PA, r=512", "xsum"] == pytest.approx(0.56)
    assert printed["MAM Adapter", "Full-FT", "sst2"] == pytest.approx(-0.4)


@pytest.mark.slow
def test_every_method_has_the_same_number_of_trials() -> None:
    trials = list(grid.list_trials())
    counts = {}
    for cell, rate in trials:
        counts.setdefault((cell.task, cell.method), set()).add(rate)
    assert {len(rates) for rates in counts.values()} == {len(grid.FACTORS)}
    assert {(cell.task, cell.method) for cell in grid.list_cells()} == set(counts)
    stored = {key: {trial.rate for trial in found} for key, found in read_trials(TRIALS).items()}
    assert stored == counts


@pytest.mark.parametrize("name", [grid.GRID, grid.RATES])
def test_experiments_are_those_that_the_script_writes(name: str, tmp_path: Path) -> None:
    if name == grid.GRID:
        grid.write_cells(choose_rates(TRIALS), tmp_path / "written.yaml")
    else:
        grid.write_trials(tmp_path / "written.yaml")
    written = (tmp_path / "written.yaml").read_text()
    assert (grid.CONF / f"{name}.yaml").read_text() == written


@pytest.mark.slow
def test_stored_runs_are_those_of_the_experiment() -> None:
    stored = {(record.cell, record.seed): record for record in RUNS}
    names = {cell.name for cell in grid.list_cells()}
    assert {cell for cell, _ in stored} <= names
    assert len(stored) == len(RUNS)
    experiment = read(grid.GRID)
    for cell in experiment.cells[::7]:  # composing all of them takes half a minute
        for seed in grid.SEEDS:
            if (cell.row, seed) in stored:
                overrides = [*cell.overrides["mini"], "scale=mini", f"seed={seed}"]
                assert plan(compose(overrides)).run_id == stored[cell.row, seed].run_id


def test_repeat_covers_every_table_that_was_run() -> None:
    chosen = list(choose(RUNS, table_names()))
    covered = [table for _, tables in chosen for table in tables]
    assert len(covered) == len(set(covered))
    done = {record.cell for record in RUNS}
    for experiment in grid.read_experiments():
        for task in experiment.metrics:
            rows = {grid.cell_of(c).name for c in experiment.cells if c.task == task}
            assert (f"{experiment.name}_{task}" in covered) == bool(rows & done)
