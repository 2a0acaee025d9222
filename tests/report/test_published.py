"""Published tables beside our runs: what counts as a cell's run, and what is missing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from made_runs import make_run

from unipeft_run.commands.report import main
from unipeft_run.config.experiments import Experiment, read
from unipeft_run.report.published import find_tables
from unipeft_run.runs.reader import RunRecord, read_run

Capture = pytest.CaptureFixture[str]
SST2 = ("task=sst2", "method=mam")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def define(*cells: str) -> Experiment:
    """Define the experiment `mine`, each cell by its row and its overrides."""
    rows = [dict(zip(("row", "run"), cell.split(": "), strict=True)) for cell in cells]
    folder = Path("lab") / "experiment"
    folder.mkdir(parents=True)
    content = {"cells": [{**row, "run": row["run"].split()} for row in rows]}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    experiment = read("mine", [Path("lab")])
    assert experiment is not None
    return experiment


def sheet(capsys: Capture) -> list[dict[str, str]]:
    words = ["outputs", "--experiment", "mine", "--config-dir", "lab", "--format", "csv"]
    assert main(words) == 0
    return list(csv.DictReader(capsys.readouterr().out.splitlines()))


def find_missing(experiment: Experiment, runs: list[RunRecord]) -> dict[str, str]:
    (found,) = find_tables(runs, experiment)
    return dict(found.missing)


def test_a_run_with_other_settings_leaves_its_cell_missing() -> None:
    experiment = define("one: task=sst2 method=mam", "two: task=sst2 method=bitfit")
    short = read_run(make_run(*SST2, "recipe.max_steps=9"))
    assert list(find_missing(experiment, [short])) == ["one", "two"]
    whole = read_run(make_run(*SST2))
    assert list(find_missing(experiment, [short, whole])) == ["two"]


def test_an_illegal_cell_is_a_row_with_its_reason(capsys: Capture) -> None:
    run = read_run(make_run(*SST2))
    wrong = "task=sst2 method=prefix insertion@attn=sequential"
    experiment = define(f"wrong: {wrong}", "right: task=sst2 method=mam")
    illegal, legal = sheet(capsys)
    assert illegal["differs in"].startswith("illegal: slot attn: insertion sequential is illegal")
    assert (illegal["seeds"], legal["seeds"]) == ("", "1")
    assert "differs in" not in legal["notes"]
    assert find_missing(experiment, [run]) == {}


def test_runs_that_match_no_row_are_named_with_their_differences(capsys: Capture) -> None:
    define("one: task=sst2 method=mam", "two: task=sst2 method=mam ffn.bottleneck=3 seed=7")
    own = "composition@ffn=add", "ffn.bottleneck=3"
    folders = [make_run(*SST2, *own, f"seed={seed}") for seed in (1, 2)]
    other = make_run("task=sst2", "method=bitfit")
    rows = sheet(capsys)
    assert [row["seeds"] for row in rows] == ["", ""]
    names = ", ".join(f"sst2/mam/{name}" for name in sorted(folder.name for folder in folders))
    assert (
        f"3 runs of sst2 match no row: sst2/bitfit/{other.name} (no row has method bitfit); "
        f"{names} have composition@ffn=add, where row 'two' has composition@ffn=scaled ffn.scale=4"
    ) in rows[0]["notes"]
    assert "scale mini uses other data" in rows[0]["notes"]


def test_an_empty_slot_of_a_run_without_a_row_is_one_setting(capsys: Capture) -> None:
    define("one: task=sst2 method=mam")
    empty = make_run(*SST2, "ffn=null")
    (row,) = sheet(capsys)
    assert f"sst2/mam/{empty.name} has ffn=null, where row 'one' has form@ffn=" in row["notes"]


def test_cells_without_a_task_stand_for_the_tasks_of_the_runs(capsys: Capture) -> None:
    experiment = define("one: method=mam", "two: method=bitfit")
    make_run("task=mnli", "method=mam")
    sst2 = [read_run(make_run(*SST2)), read_run(make_run("task=xsum", "method=houlsby"))]
    rows = sheet(capsys)
    assert [(row["task"], row["row"], row["seeds"]) for row in rows] == [
        *(("mnli", "one", "1"), ("mnli", "two", "")),
        *(("sst2", "one", "1"), ("sst2", "two", "")),
    ]
    assert find_missing(experiment, sst2)["two"].split()[2:4] == ["task=sst2", "method=bitfit"]


def test_without_a_task_or_a_run_there_is_no_table(capsys: Capture) -> None:
    define("one: method=mam")
    (make_run(*SST2) / "metrics.json").unlink()
    assert main(["outputs", "--experiment", "mine", "--config-dir", "lab"]) == 2
    error = capsys.readouterr().err
    assert "experiment mine: its cells name no task, and no finished run has one" in error


def test_stored_runs_of_version_0_1_are_compared_as_they_behave(capsys: Capture) -> None:
    define("one: task=xsum method=mam")
    file = make_run("task=xsum", "method=mam") / "config.yaml"
    config = json.loads(json.dumps(yaml.safe_load(file.read_text())))
    del config["evaluation"]["decoding"]["rules"], config["recipe"]["accumulation_weighting"]
    file.write_text(yaml.safe_dump(config))
    (row,) = sheet(capsys)
    assert row["differs in"] == "evaluation.decoding.rules=transformers"
