"""The commands of scripts/results: what is stored, and when rates are chosen."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import archive
import grid
import pytest
from made_reports import make_class_rows, make_full_run

SCRIPT = Path(__file__).parents[2] / "scripts" / "results" / "__main__.py"


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("results_commands", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(commands: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, the only one that is planned."""
    folder = make_full_run("task=sst2", "method=mam", rows=make_class_rows(1, 20, 80), final=80.0)
    planned = SimpleNamespace(run_id=folder.name, folder=folder)
    monkeypatch.setattr(grid, "plan_runs", lambda *_: iter([("cell", planned, [])]))
    return folder


def store_as(file: Path, record: archive.Record, **changed: Any) -> None:
    archive.write_records(file, [archive.Record(**{**archive.row_of(record), **changed})])


def test_a_finished_run_replaces_the_record_of_one_that_diverged(
    commands: ModuleType, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "runs.parquet"
    commands.store("any", [1], file, tmp_path)
    (done,) = archive.read_records(file)
    store_as(file, done, state="diverged", metrics="{}")
    commands.store("any", [1], file, tmp_path)
    assert archive.read_records(file) == [done]
    store_as(file, done, machine="elsewhere")
    commands.store("any", [1], file, tmp_path)
    assert archive.read_records(file)[0].machine == "elsewhere"


@pytest.mark.parametrize("is_missing", [False, True])
def test_rates_are_chosen_once_every_trial_has_ended(
    is_missing: bool,
    commands: ModuleType,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A grid with a diverged trial ends with exit code 1."""
    commands.TRIALS = tmp_path / "trials.parquet"
    if not is_missing:
        commands.store("any", [1], commands.TRIALS, tmp_path)
    written: list[object] = []
    monkeypatch.setattr(grid, "write_trials", lambda: None)
    monkeypatch.setattr(grid, "write_cells", written.append)
    monkeypatch.setattr(commands, "choose_rates", lambda records: "rates")
    monkeypatch.setattr(commands, "_run", lambda *_: 1)
    code = commands._run_trials(argparse.Namespace(output=tmp_path))
    assert (code, written) == ((1, []) if is_missing else (0, ["rates"]))
