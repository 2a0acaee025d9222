"""A damaged or hostile run folder does not prevent or delay reading the others."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hostile_runs import FILES, cases

from unipeft_run.commands.runs import main
from unipeft_run.runs.finished import finished_runs
from unipeft_run.runs.reader import STATES, RunRecord, find_runs, read_run
from unipeft_run.runs.reading import UnreadableFile

(RECORDED,) = (Path(__file__).parents[1] / "recorded_runs" / "runs").glob("sst2/mam/*")
GOOD = ("000-good", "999-good")
SECONDS = 20  # for one folder, and for the listing of all


def copy_run(target: Path) -> Path:
    target.mkdir(parents=True)
    for name in FILES:
        shutil.copy(RECORDED / name, target / name)
    return target


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make every hostile folder once, between two good runs."""
    root = tmp_path_factory.mktemp("hostile") / "outputs" / "sst2" / "mam"
    for name in GOOD:
        copy_run(root / name)
    for number, (_, act) in enumerate(cases(), start=1):
        act(copy_run(root / f"{number:03d}"))
    return root


def test_there_are_many_cases() -> None:
    names = [name for name, _ in cases()]
    assert len(names) == len(set(names)) >= 300


def test_every_folder_is_read_in_time(root: Path) -> None:
    names = dict(enumerate((name for name, _ in cases()), start=1))
    for folder in sorted(root.iterdir()):
        start = time.monotonic()
        check_types(read_run(folder))
        name = folder.name if folder.name in GOOD else names[int(folder.name)]
        assert time.monotonic() - start < SECONDS, name


def check_types(run: RunRecord) -> None:
    """Assert that the record has its declared types, whatever the files hold."""
    assert run.state in STATES
    assert type(run.step) is int and run.step >= 0
    assert run.total is None or (type(run.total) is int and run.total >= 0)
    assert run.seconds_left is None or 0 <= run.seconds_left < 1e16
    assert run.metric is None or isinstance(run.metric[1], int | float)
    texts = (run.label, run.error, *run.problems, run.reason_left_out, *(run.metric or ())[:1])
    assert all(isinstance(text, str) and text.isprintable() for text in texts)
    assert all(isinstance(data, dict) for data in (run.config, run.metrics, run.status))
    json.dumps([run.config, run.metrics, run.status], allow_nan=False)
    try:
        assert all(isinstance(row["step"], int) for row in run.train_records())
        assert list(run.predictions("test")) == []
    except UnreadableFile as error:
        assert str(error).isprintable()


def test_good_runs_are_listed_between_hostile_ones(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    start = time.monotonic()
    assert main([str(root)]) == 0
    assert time.monotonic() - start < SECONDS
    out, err = capsys.readouterr()
    count = len(list(root.iterdir()))
    assert len(out.splitlines()) == count + 2  # a header, and the counts at the end
    for name in GOOD:
        (line,) = (line for line in out.splitlines() if f"/{name} " in line)
        assert "done" in line and "test/accuracy" in line
    assert len(err.splitlines()) < count
    assert all(line.isprintable() for line in (out + err).splitlines())


def test_json_of_hostile_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(root), "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    good = [run for run in runs if Path(run["folder"]).name in GOOD]
    assert [run["state"] for run in good] == ["done", "done"]
    assert good[0]["config"]["task"]["name"] == "sst2"


@pytest.mark.parametrize(
    "filters", [["seed=*"], ["task=sst2", "state=done"], ["ffn.bottleneck=*", "optim.lr=1e-3"]]
)
def test_filters_over_hostile_runs(root: Path, filters: list[str]) -> None:
    assert main([str(root), *filters]) == 0


def test_hostile_runs_are_left_out_of_tables_with_a_reason(root: Path) -> None:
    finished, left_out = finished_runs([root])
    assert {run.folder.name for run in finished} & set(GOOD) == {GOOD[0]}  # the other is its copy
    assert any("999-good: the same run as" in line for line in left_out)
    assert all(line.isprintable() for line in left_out)
    assert len(left_out) + len(finished) == len(list(root.iterdir()))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Collect the configurations that reach `run`."""
    seen: list[Any] = []
    stub = ModuleType("unipeft_run.run")
    stub.run = lambda cfg: seen.append(cfg) or {"state": "done"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unipeft_run.run", stub)
    yield seen


def test_retrying_hostile_runs_refuses_each_with_a_sentence(
    root: Path, ran: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(root), "--retry-failed", "run_id=*7"]) == 2  # a tenth of them
    out, err = capsys.readouterr()
    assert ran == []
    assert "Traceback" not in out + err
    assert err.count("refused: ") > 8


def test_two_runs_of_one_cell_share_its_id(root: Path) -> None:
    runs = {run.folder.name: run for run in find_runs([root])}
    assert runs[GOOD[0]].cell == runs[GOOD[1]].cell
