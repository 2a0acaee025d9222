"""The lines that a grid prints while it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tiny_cli import call

from unipeft_run import cli
from unipeft_run.config import compose
from unipeft_run.runs.outcome import Outcome, make_outcome
from unipeft_run.sweeps.check import Check, CheckedRun
from unipeft_run.sweeps.engines.announcer import Announcer, prefixed_stderr
from unipeft_run.sweeps.engines.worker import Job, RoundLog
from unipeft_run.sweeps.grid import run_grid

SST2 = ("task=sst2", "method=mam", "scale=mini")
METRICS = {"primary": "test/accuracy", "test/accuracy": 84.756}


def done(seconds: float) -> Outcome:
    return Outcome(state="done", error="", seconds=seconds, metrics=METRICS)


@pytest.fixture
def log(tmp_path: Path) -> RoundLog:
    return RoundLog(tmp_path, 1)


def announce(log: RoundLog, workers: int, *outcomes: Outcome, unfinished: int = 4) -> None:
    labels = [f"seed={seed}" for seed in range(5)]
    announcer = Announcer(labels, range(1, 5), unfinished, workers, log.folder)
    for position, outcome in enumerate(outcomes):
        with announcer.announce_begin(position):
            print("at work", file=sys.stderr)
        log.end(position, outcome)
        announcer.announce_end(position, outcome)


def test_a_line_at_the_beginning_and_the_end_of_a_cell(
    log: RoundLog, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(log, 1, done(100), done(120), make_outcome("failed", "no"))
    assert capsys.readouterr().err.splitlines() == [
        "[2/5] seed=1",
        "at work",
        "[2/5] done  test/accuracy 84.76  100 s  (1 of 4 have run, about 0:05:00 left)",
        "[3/5] seed=2",
        "at work",
        "[3/5] done  test/accuracy 84.76  120 s  (2 of 4 have run, about 0:03:40 left)",
        "[4/5] seed=3",
        "at work",
        "[4/5] failed  0 s  (3 of 4 have run, about 0:01:50 left)",
    ]


def test_cells_beside_each_other_have_marked_lines_and_share_the_time_left(
    log: RoundLog, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(log, 2, done(60))
    assert capsys.readouterr().err.splitlines()[1:] == [
        "[2] at work",
        "[2/5] done  test/accuracy 84.76  60 s  (1 of 4 have run, about 0:01:30 left)",
    ]


def test_runs_that_were_finished_before_do_not_count(
    log: RoundLog, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(log, 1, make_outcome("skipped"), done(60), unfinished=1)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "at work" not in line] == [
        "[2/5] seed=1",
        "[3/5] seed=2",
        "[3/5] done  test/accuracy 84.76  60 s  (1 of 1 have run)",
    ]


def test_prefixed_lines_are_written_whole(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stderr
    with prefixed_stderr("[3] "):
        sys.stderr.write("one ")
        sys.stderr.write("line\nand")
        sys.stderr.flush()
        os.write(sys.stderr.fileno(), b"beside\n")
        sys.stderr.write(" another")
        assert not sys.stderr.isatty()
    assert sys.stderr is before
    before.flush()
    assert capfd.readouterr().err == "[3] one line\nbeside\n[3] and another\n"


def test_a_grid_counts_its_cells(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [*SST2, "seed=1,2,2"]
    code = run_grid(
        "train",
        overrides,
        lambda cfg: make_outcome("skipped" if cfg.seed == 1 else "done"),
        lambda cfg, _: CheckedRun(int(cfg.seed), is_finished=cfg.seed == 1),
    )
    assert code == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "3 cells: 1 to run, 1 finished before, 1 equal"
    assert [line for line in lines if line.startswith("[")][-1].endswith("(1 of 1 have run)")


def test_the_command_recognises_finished_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*SST2, f"output={tmp_path}", "seed=1,2"]
    checks: list[Check] = []

    def run_nothing(name: str, overrides: list[str], job: Job, check: Check) -> int:
        checks.append(check)
        return 0

    monkeypatch.setattr(cli, "run_grid", run_nothing)
    assert call(cli.train, monkeypatch, "-m", *overrides) == 0
    (check,) = checks
    config = compose([*SST2, f"output={tmp_path}"], "train")
    found = check(config, SST2)
    assert not found.is_finished
    folder = Path(str(found.identity))
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"test/accuracy": 80.0}')
    assert check(config, SST2).is_finished
    again = compose([*SST2, f"output={tmp_path}", "force=true"], "train")
    assert not check(again, SST2).is_finished
