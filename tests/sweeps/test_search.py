"""Searches with Optuna: what is proposed, told, resumed, refused and printed."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny_cli import call
from tiny_files import write_roberta, write_sentiment

from unipeft_run import cli
from unipeft_run.config import PlannedRun

pytest.importorskip("optuna")
SST2 = ("task=sst2", "method=mam", "scale=mini")
SPACE = ("optim.lr=tag(log,interval(1e-4,1e-2))", "ffn.bottleneck=choice(16,32)")
OPTUNA = ("-m", "hydra/sweeper=optuna", *SST2, *SPACE)
Search = Callable[..., int]
Run = Callable[[PlannedRun], dict[str, Any]]


class Runs:
    """A stub of `unipeft_run.run`: trains nothing, remembers results, and fails on demand."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.started: list[tuple[float, int]] = []
        self.ends: dict[int, dict[str, Any] | BaseException] = {}  # by number of the run started

    def run(self, planned: PlannedRun) -> dict[str, Any]:
        state = "skipped" if planned.run_id in self.values else "done"
        lr, rank = planned.config.optim.lr, planned.config.slots()["ffn"].bottleneck
        if state == "done":
            self.started.append((lr, rank))
            end = self.ends.get(len(self.started), {})
            if isinstance(end, BaseException):
                raise end
            if end:
                return end
            self.values[planned.run_id] = lr * rank
        value = self.values[planned.run_id]
        metrics = {"validation/accuracy": value, "validation/loss": value}
        return {"state": state, "primary": "test/accuracy", "test/accuracy": 7.0, **metrics}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Runs]:
    monkeypatch.chdir(tmp_path)
    runs, stub = Runs(), ModuleType("unipeft_run.run")
    stub.run = runs.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unipeft_run.run", stub)
    yield runs


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Search:
    return lambda *words: call(cli.train, monkeypatch, *words)


def table(out: str) -> list[tuple[str, str, str]]:
    """Return the cell, state and metric of each row of a closing table."""
    rows = re.findall(r"^(\S*optim.lr=.*?)  +(\S+)  +((?:validation/\S+ [\d.]+)?) +\d+$", out, re.M)
    return [(cell, state, metric) for cell, state, metric in rows]


@pytest.mark.slow
def test_the_best_trial_is_named_with_its_command(
    runs: Runs, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(*OPTUNA, "hydra.sweeper.n_trials=3") == 0
    out, err = capsys.readouterr()
    assert len(runs.started) == len(table(out)) == 3
    lr, rank = max(runs.started, key=lambda trial: trial[0] * trial[1])
    trial, folder = (
        runs.started.index((lr, rank)) + 1,
        max(runs.values, key=runs.values.__getitem__),
    )
    value = f"validation/accuracy {lr * rank:.2f}"
    assert f"best: trial {trial}, {value}, outputs/sst2/mam/{folder}" in out.splitlines()
    command = f"unipeft train {' '.join(SST2)} optim.lr={lr} ffn.bottleneck={rank}"
    assert command in out.splitlines()
    assert err.count("trial ") == 3 and "trial 3/3  done  validation/accuracy" in err
    (study,) = Path("outputs/searches").glob("*/study.db")
    with sqlite3.connect(study) as connection:
        states = connection.execute("select state from trials").fetchall()
    assert states == [("COMPLETE",)] * 3


def test_a_loss_is_minimised(
    runs: Runs, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(*OPTUNA, "task.selection=loss", "hydra.sweeper.n_trials=2") == 0
    smallest = min(lr * rank for lr, rank in runs.started)
    assert f"validation/loss {smallest:.4f}, outputs" in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupted_search_continues_with_the_same_trials(
    runs: Runs, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*OPTUNA, "hydra.sweeper.n_trials=3")
    assert search(*words) == 0
    uninterrupted, started = table(capsys.readouterr().out), list(runs.started)

    runs.values.clear()
    runs.started.clear()
    runs.ends[2] = KeyboardInterrupt()
    assert search(*words) == 130
    _, err = capsys.readouterr()
    assert err.endswith("interrupted; run the same command to resume\n")
    runs.ends.clear()
    assert search(*words) == 0
    resumed = table(capsys.readouterr().out)
    assert [(cell, metric) for cell, _, metric in resumed] == [
        (cell, metric) for cell, _, metric in uninterrupted
    ]
    assert [state for _, state, _ in resumed] == ["skipped"] + ["done"] * 2
    assert runs.started == [*started[:2], *started[1:]]

    assert search(*OPTUNA, "hydra.sweeper.n_trials=4") == 0  # one more trial, in the same folder
    assert len(runs.started) == 5
    assert len(list(Path("outputs/searches").iterdir())) == 1


@pytest.mark.slow
def test_a_trial_that_fails_is_not_the_best(
    runs: Runs, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.ends[1] = {"state": "diverged", "error": "the loss is nan", "validation/accuracy": 99}
    runs.ends[2] = {"state": "done", "validation/accuracy": float("nan")}
    assert search(*OPTUNA, "hydra.sweeper.n_trials=3") == 1
    out, err = capsys.readouterr()
    assert [(state, bool(metric)) for _, state, metric in table(out)] == [
        ("diverged", False), ("failed", False), ("done", True)
    ]  # fmt: skip
    assert "best: trial 3, " in out
    assert "the loss is nan" in err and "the run has no finite validation/accuracy" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_search_in_which_all_trials_fail(
    runs: Runs, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        runs.ends[number] = {"state": "diverged", "error": "the loss is nan"}
    assert search(*OPTUNA, "hydra.sweeper.n_trials=2") == 1
    out, err = capsys.readouterr()
    assert len(table(out)) == 2 and "best:" not in out
    assert err.endswith("no trial has a value\n")


@pytest.mark.slow
def test_equal_trials_run_once(
    runs: Runs, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = ("ffn.bottleneck=choice(16,32)", "recipe.log_every=5,10")  # the second is no other run
    words = ("-m", "hparams_search=lr", *SST2, "optim.lr=1e-3", *lists)
    assert search(*words, "hydra.sweeper.n_trials=99") == 0
    out, err = capsys.readouterr()
    assert len(runs.started) == 2
    assert err.count("/99") == 4 and out.count("ffn.bottleneck=") == 4 + 1, (
        "no line for a repetition"
    )
    assert "the same run as trial 1" in err
    assert "\nall combinations have been tried: the search ends\n" in err


@pytest.mark.slow
def test_a_search_file_and_a_fixed_key(
    runs: Runs, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-m", "hparams_search=lr_bottleneck", *SST2, "ffn.bottleneck=8")
    assert search(*words, "hydra.sweeper.n_trials=2", "hydra.sweep.dir=mine") == 0
    assert {rank for _, rank in runs.started} == {8}
    assert len({lr for lr, _ in runs.started}) == 2
    assert list(Path().glob("mine/*/study.db")) and not Path("outputs/searches").exists()
    (command,) = re.findall(r"^unipeft train .*$", capsys.readouterr().out, re.M)
    assert "hparams_search" not in command and "ffn.bottleneck=8" in command


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lr", "lr_bottleneck", "mini_lr"])
def test_the_shipped_searches(runs: Runs, search: Search, name: str) -> None:
    assert search("-m", f"hparams_search={name}", *SST2, "hydra.sweeper.n_trials=1") == 0
    assert len(runs.started) == 1


def test_an_axis_is_searched_in_one_slot_and_fixed_in_another(
    runs: Runs, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    forms = ("form@ffn=choice(bottleneck,bottleneck_zero)", "form@attn=memory")
    words = ("-m", "hydra/sweeper=optuna", *SST2, *forms, "hydra.sweeper.n_trials=1")
    assert search(*words, "hydra.sweep.dir=mine") == 0
    assert "form@ffn=bottleneck" in capsys.readouterr().err
    assert search(*words, "hydra.sweep.dir=mine", "seed=3") == 0
    assert len(list(Path().glob("mine/*/study.db"))) == 2, "one search deletes no other's study"


# ---- real training

TINY = (
    *("task=sst2", "method=parallel_ffn", "scale=mini", "debug=tiny", "tracking.wandb=null"),
    *("recipe.max_steps=4", "recipe.eval_every=2", "task.path=data", "backbone.path=model"),
)


def command(folder: Path, *words: str) -> list[str]:
    script = str(Path(sys.executable).with_name("unipeft-train"))
    return [script, "-m", "hydra/sweeper=optuna", *TINY, *SPACE, *words]


@pytest.mark.slow
def test_a_search_killed_in_the_middle_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    write_sentiment(tmp_path / "data")
    write_roberta(tmp_path / "model")
    env = {**os.environ, "UNIPEFT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    given: dict[str, Any] = {"cwd": tmp_path, "env": env, "text": True}

    def start(output: str) -> subprocess.Popen[str]:
        words = command(tmp_path, "hydra.sweeper.n_trials=4", f"output={output}")
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **given)

    killed = start("outputs")
    while len(list(tmp_path.glob("outputs/sst2/*/*/status.json"))) < 3:
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = {path.parent.name for path in tmp_path.glob("outputs/sst2/*/*/metrics.json")}
    assert 2 <= len(done) <= 3

    out, err = start("outputs").communicate()
    assert err.count("already done") + out.count("already done") == len(done), err
    other, _ = start("others").communicate()
    rows = [(cell, metric) for cell, _, metric in table(out)]
    assert len(rows) == 4 and rows == [(cell, metric) for cell, _, metric in table(other)]
    values = [json.loads(path.read_text())["validation/accuracy"]
              for path in tmp_path.glob("outputs/sst2/*/*/metrics.json")]  # fmt: skip
    assert f"validation/accuracy {max(values):.2f}, outputs/sst2" in out
