"""The lines that a grid prints while it runs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tiny_cli import call

from unipeft_run import cli
from unipeft_run.config import compose
from unipeft_run.runs.outcome import Outcome, make_outcome
from unipeft_run.sweeps.check import Check, CheckedRun
from unipeft_run.sweeps.engines import Engine
from unipeft_run.sweeps.engines import engine as engine_module
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


def announce(
    log: RoundLog, workers: int, *outcomes: Outcome, finished: Collection[int] = (0,)
) -> None:
    labels = [f"seed={seed}" for seed in range(5)]
    announcer = Announcer(labels, range(1, 5), finished, workers, log.folder)
    for position, outcome in enumerate(outcomes):
        with announcer.announce_begin(position):
            print("at work", file=sys.stderr)
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
    announce(log, 1, make_outcome("skipped"), done(60), finished=(0, 1, 3, 4))
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "at work" not in line] == [
        "[2/5] seed=1",
        "[3/5] seed=2",
        "[3/5] done  test/accuracy 84.76  60 s  (1 of 1 have run)",
    ]


@pytest.mark.parametrize("state", ["skipped", "running elsewhere"])
def test_cells_that_another_process_runs_are_not_waited_for(
    log: RoundLog, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    """A lost cell stays, because the next round runs it."""
    announce(log, 1, make_outcome(state), make_outcome("lost"), done(60))
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].endswith("60 s  (1 of 3 have run, about 0:02:00 left)")


def test_a_later_round_overwrites_how_a_cell_ended(
    log: RoundLog, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(log, 1, make_outcome("running elsewhere"), done(60))
    announce(log, 1, done(60))
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].endswith("(2 of 4 have run, about 0:02:00 left)")


def test_a_log_handler_of_one_cell_has_the_prefix_of_the_next(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with prefixed_stderr("[1] "):
        handler = logging.StreamHandler()
        handler.emit(logging.makeLogRecord({"msg": "first"}))
    with prefixed_stderr("[2] "):
        handler.emit(logging.makeLogRecord({"msg": "second"}))
    handler.emit(logging.makeLogRecord({"msg": "between cells"}))
    assert capsys.readouterr().err == "[1] first\n[2] second\nbetween cells\n"


@pytest.mark.parametrize(("cells", "workers"), [(1, 1), (2, 2), (5, 2)])
def test_a_cell_by_itself_has_no_prefix(
    cells: int, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although joblib has two workers. A later round counts its workers anew."""
    monkeypatch.setattr(engine_module, "visible_gpus", lambda: ())
    labels = [[f"seed={seed}"] for seed in range(5)]
    config = OmegaConf.create({"hydra": {"launcher": {"n_jobs": 2}, "callbacks": {}}})
    config.hydra.runtime = {"choices": {"hydra/launcher": "joblib"}}
    engine = Engine(None, config, lambda _: done(1), tmp_path, labels)
    for _ in range(2):
        worker = engine._build_worker(labels[:cells], RoundLog(tmp_path, 1))
        assert worker.announcer and worker.announcer.workers == workers
    config.hydra.launcher.n_jobs = 1  # what a round has set
    assert engine._build_worker(labels, RoundLog(tmp_path, 1)).announcer.workers == 2  # type: ignore[union-attr]


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

    def run_nothing(name: str, overrides: list[str], job: Job, check: Check, _: object) -> int:
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
