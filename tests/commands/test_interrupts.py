"""Interrupted runs: the recorded state, the message, and how they continue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import pytest
from tiny_files import write_roberta, write_sentiment

from unipeft_run import run as running
from unipeft_run.commands.runs import RETRIED, main
from unipeft_run.commands.signals import raise_on_sigterm
from unipeft_run.config import PlannedRun, compose, plan
from unipeft_run.errors import Interrupted, UserError
from unipeft_run.runs.failures import explain_failure, explain_interrupt
from unipeft_run.runs.folder import RunFolder, read_status
from unipeft_run.runs.reader import read_run
from unipeft_run.training.distributed.environment import silence_progress_bars

Prepare = Callable[..., Any]


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch) -> Callable[[Prepare], None]:
    """Replace `PreparedRun` by a function."""
    task = SimpleNamespace(describe_split=lambda splits: {})
    inputs = SimpleNamespace(task=task, splits={})
    monkeypatch.setattr(running, "load_inputs", lambda config: inputs)

    def replace(function: Prepare) -> None:
        stub = ModuleType("unipeft_run.experiment")
        stub.PreparedRun = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "unipeft_run.experiment", stub)

    return replace


def planned(output: Path, *words: str) -> PlannedRun:
    return plan(compose(["task=sst2", "method=mam", "scale=mini", f"output={output}", *words]))


def interrupt(*given: Any) -> NoReturn:
    raise KeyboardInterrupt


def test_an_interrupt_before_training_is_recorded(
    tmp_path: Path, prepare: Callable[[Prepare], None]
) -> None:
    prepare(interrupt)
    run = planned(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        running.run(run)
    found = read_run(run.folder)
    assert (found.state, found.error) == ("interrupted", "stopped by SIGINT")
    assert found.reason_left_out == "interrupted at step 0: stopped by SIGINT"


def test_interrupted_runs_are_listed_and_rerun(
    tmp_path: Path, prepare: Callable[[Prepare], None], capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(interrupt)
    with pytest.raises(KeyboardInterrupt):
        running.run(planned(tmp_path))
    assert main([str(tmp_path), "state=interrupted"]) == 0
    assert "1 run: 1 interrupted" in capsys.readouterr().out
    assert main([str(tmp_path), "--stale"]) == 0
    assert "0 runs" in capsys.readouterr().out
    assert "interrupted" in RETRIED
    prepare(lambda *given: SimpleNamespace(train=lambda *given: {"primary": "m", "m": 1.0}))
    assert main([str(tmp_path), "--retry-failed"]) == 0
    assert "m 1.00" in capsys.readouterr().out


def test_a_forced_run_that_cannot_begin_keeps_the_old_one(
    tmp_path: Path, prepare: Callable[[Prepare], None]
) -> None:
    def refuse(*given: Any) -> NoReturn:
        raise UserError("cannot write to the cache folder")

    prepare(refuse)
    run = planned(tmp_path, "force=true")
    old = RunFolder(run.folder)
    old.write_text("config.yaml", "task: {}\nmethod: mam\nbackbone: {}\nrecipe: {}\n")
    old.mark("done", step=7)
    old.write_json("metrics.json", {"primary": "m", "m": 1.0})
    before = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    with pytest.raises(UserError, match="cache folder"):
        running.run(run)
    after = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    assert before == after


def test_sigterm_is_an_exception_and_the_handler_is_restored() -> None:
    with pytest.raises(Interrupted, match="stopped by SIGTERM"), raise_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_message_says_how_to_resume() -> None:
    stop = Interrupted(signal.SIGTERM)
    assert explain_interrupt(stop) == "stopped by SIGTERM; run the same command to resume"
    assert explain_interrupt(KeyboardInterrupt(), ["seed=1"]).startswith("interrupted; run the")
    for word in ("force=true", "++force=True"):
        assert explain_interrupt(stop, [word]).endswith("without force=true to resume")


def test_a_wrong_torch_log_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_LOGS", "foo")
    sentence = explain_failure(ValueError("\nInvalid log settings: foo, must be a comma ..."))
    assert sentence == "TORCH_LOGS=foo: torch knows no such log"


def test_other_libraries_show_no_progress_bars_in_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"TQDM_DISABLE": "0"}
    silence_progress_bars(environ)
    assert environ["TQDM_DISABLE"] == "0", "the user's choice"
    assert environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    silence_progress_bars(terminal := {})
    assert not terminal


@pytest.mark.slow
def test_a_terminated_command_resumes(tmp_path: Path) -> None:
    write_sentiment(tmp_path / "data")
    write_roberta(tmp_path / "model")
    script = str(Path(sys.executable).with_name("unipeft-train"))
    words = ["task=sst2", "method=parallel_ffn", "scale=mini", "debug=tiny", "task.path=data",
             "backbone.path=model", "recipe.max_steps=3000", "recipe.eval_every=1500"]  # fmt: skip
    env = {**os.environ, "UNIPEFT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    given: dict[str, Any] = {"cwd": tmp_path, "env": env, "text": True}
    with subprocess.Popen([script, *words], stderr=subprocess.PIPE, **given) as process:
        while not (began := list(tmp_path.glob("outputs/*/*/*/train.jsonl"))):
            time.sleep(0.1)
        process.terminate()
        _, err = process.communicate()
    assert process.returncode == 143
    assert err.endswith("stopped by SIGTERM; run the same command to resume\n")
    assert "\r" not in err and "it/s" not in err, "no other progress bars"
    status = read_status(began[0].parent)
    assert (status["state"], status["error"]) == ("interrupted", "stopped by SIGTERM")
    assert status["step"] > 0
