"""Run folders of version 0.1 are listed, reported and evaluated with their recorded numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_cli import call

from unipeft_run import cli
from unipeft_run.commands import report, runs
from unipeft_run.config import load, plan_config

RECORDED = Path(__file__).parents[1] / "recorded_runs"
SST2, XSUM = Path("runs/sst2/mam/544329ef"), Path("runs/xsum/prefix_lora_ffn/f9e8512b")
PLACES = {SST2: ("sentiment", "roberta"), XSUM: ("pairs", "bart")}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recorded folders; the runs name their data relative to it."""
    home = shutil.copytree(RECORDED, tmp_path / "home")
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(home)
    return home


def read_json(file: Path) -> Any:
    return json.loads(file.read_text())


def evaluated(output: str, split: str = "test") -> dict[str, float]:
    words = (line.split() for line in output.splitlines() if line.startswith(f"{split}/"))
    return {name: float(value) for name, value in words}


@pytest.mark.parametrize("folder", PLACES)
def test_evaluation_gives_the_recorded_metrics(
    home: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(cli.evaluate, monkeypatch, f"run={folder}") == 0
    found = evaluated(capsys.readouterr().out)
    recorded = read_json(home / folder / "metrics.json")
    assert found and found == pytest.approx({name: recorded[name] for name in found}, abs=1e-6)
    assert {name for name in recorded if name.startswith("test/")} == set(found)


@pytest.mark.parametrize("folder", PLACES)
def test_a_copied_run_is_evaluated_where_its_data_is_given(
    home: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.copytree(home / folder, "run")
    data, backbone = PLACES[folder]
    assert call(cli.evaluate, monkeypatch, "run=run") == 2
    assert "task.path" in capsys.readouterr().err
    words = (f"task.path=../home/{data}", f"backbone.path=../home/{backbone}")
    assert call(cli.evaluate, monkeypatch, "run=run", *words) == 0
    loss = evaluated(capsys.readouterr().out)["test/loss"]
    assert loss == pytest.approx(read_json(home / folder / "metrics.json")["test/loss"], abs=1e-6)


def test_they_are_listed_and_reported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.main(["runs"]) == 0
    listed = capsys.readouterr().out
    assert "sst2/mam/544329ef" in listed and "58.33" in listed and "2 runs: 2 done" in listed
    assert report.main(["runs"]) == 0
    assert {"58.33", "0.7168", "6.4038"} <= set(capsys.readouterr().out.split())


def test_the_search_of_that_version_is_kept(home: Path) -> None:
    decoding = load(home / XSUM).evaluation.decoding
    assert decoding is not None and decoding.rules == "transformers"


@pytest.mark.parametrize("folder", PLACES)
def test_rerunning_one_names_the_run_that_its_command_makes_today(
    home: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its id named the place of its data, not the content."""
    (home / folder / "metrics.json").unlink()
    status = read_json(home / folder / "status.json")
    (home / folder / "status.json").write_text(json.dumps({**status, "state": "failed"}))
    before = sorted(home.rglob("*"))
    assert runs.main(["runs", "--retry-failed"]) == 2
    now = plan_config(load(home / folder)).run_id
    message = f"cannot be rerun in its folder: the folder was renamed, or an older version \
computed its run id differently; the command that started it makes a new run, {now}"
    assert message in capsys.readouterr().err
    assert sorted(home.rglob("*")) == before
