"""Grids: the printed table, refused Hydra settings, the limit on processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tiny_cli import call

from unipeft_run import cli
from unipeft_run.config import compose, normalise_overrides, plan
from unipeft_run.errors import UserError
from unipeft_run.runs.outcome import Outcome, exit_code, make_outcome
from unipeft_run.sweeps import launch
from unipeft_run.sweeps.check import CheckedRun
from unipeft_run.sweeps.grid import run_grid
from unipeft_run.sweeps.hydra_settings import check_hydra_settings, is_hydra_setting
from unipeft_run.sweeps.table import print_table

SST2 = ("task=sst2", "method=mam", "scale=mini")


# ---- the table


@pytest.mark.parametrize(
    "label",
    [
        "unfreeze=[classifier*],[roberta*]",
        "task.path=/data/[/b]/[bold]x",
        "task.path=[red]/[/red]",
        "output=[link=http://x]y[/link]",
        ":smile:",
    ],
)
def test_markup_in_values_is_printed_literally(
    label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"primary": "test/[b]", "test/[b]": 1.0}
    good = Outcome(state="done", error="", seconds=2.0, metrics=metrics)
    print_table([[label], ["seed=2"]], [good, make_outcome("failed", f"no [/i] {label}")])
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()[1:]] == [
        [*label.split(), "done", "test/[b]", "1.00", "2"],
        ["seed=2", "failed", "0"],
    ]
    assert err == f"failed: seed=2: no [/i] {label}\n"


def test_control_sequences_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = make_outcome("failed", "no file \x1b[2Jx\nand \x07more")
    print_table([["task.path=\x1b]0;title\x07"]], [outcome])
    out, err = capsys.readouterr()
    assert not set(out + err) & {"\x1b", "\x07"}
    assert "task.path=\\x1b]0;title\\x07" in out
    assert err == "failed: task.path=\\x1b]0;title\\x07: no file \\x1b[2Jx\nand \\x07more\n"


def test_a_narrow_terminal_breaks_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    done = Outcome(state="done", error="", seconds=2.0, metrics={"primary": "m", "m": 87.25})
    cell = ["optim.lr=0.00056115164153", "ffn.bottleneck=16"]
    print_table([cell, ["seed=2"]], [done, done])
    assert capsys.readouterr().out.splitlines() == [
        "cell",
        "  state  metric   seconds",
        "optim.lr=0.00056115164153",
        "ffn.bottleneck=16",
        "  done   m 87.25  2",
        "seed=2",
        "  done   m 87.25  2",
    ]


# ---- Hydra's own settings


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("hydra.sweep.dir=mine", "set output=DIR"),
        ("++hydra.sweep.subdir=x", "set output=DIR"),
        ("hydra.run.dir=mine", "set output=DIR"),
        ("hydra.output_subdir=.hydra", "set output=DIR"),
        ("hydra.job.chdir=true", "set output=DIR"),
        ("hydra.job.name=x", "has no effect. Hydra settings with an effect: hydra.launcher"),
        ("+hydra.job.env_set.ACCELERATE_USE_CPU=1", "has no effect"),
        ("hydra.mode=MULTIRUN", "has no effect"),
        ("~hydra.launcher_x", "has no effect"),
        ("hydra={}", "has no effect"),
    ],
)
@pytest.mark.parametrize("grid", [True, False])
def test_a_setting_of_hydra_without_effect_is_refused(
    word: str,
    part: str,
    grid: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert is_hydra_setting(word)
    with pytest.raises(UserError) as refusal:
        check_hydra_settings([*SST2, word], is_grid=grid)
    assert str(refusal.value).startswith(f"{word} ") and part in str(refusal.value)
    flags = ["-m", "seed=1,2"] if grid else []
    assert call(cli.train, monkeypatch, *flags, *SST2, word) == 2
    assert capsys.readouterr().err == f"{refusal.value}\n"


def test_settings_of_hydra_with_an_effect_are_accepted() -> None:
    check_hydra_settings(
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra/sweeper=basic"], is_grid=True
    )
    check_hydra_settings(["hydra/sweeper=optuna", "hydra.sweep.dir=mine"], is_grid=True)
    check_hydra_settings(["hydra.job.chdir=false"], is_grid=False)  # as it is
    check_hydra_settings(["hydra.searchpath=[file:///x,file:///y]"], is_grid=False)


@pytest.mark.parametrize(
    "word", ["hydra.verbose=true", "hydra/job_logging=x", "+hydra.callbacks.x=1"]
)
def test_a_setting_of_grids_is_refused_in_a_single_run(word: str) -> None:
    check_hydra_settings([*SST2, word], is_grid=True)
    with pytest.raises(UserError, match="has an effect in grids only; add -m"):
        check_hydra_settings([*SST2, word], is_grid=False)


def run_cells(*words: str) -> int:
    return run_grid(
        "train",
        normalise_overrides([*SST2, "seed=1,2", *words]),
        lambda cfg: make_outcome("done"),
        lambda cfg, _: CheckedRun(int(cfg.seed)),
    )


def test_the_output_of_a_grid_may_be_in_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "o'brien"))
    assert run_cells("output=~/runs") == 0
    assert (tmp_path / "o'brien" / "runs").is_dir()
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("output=afile", "the output folder cannot be used: afile: File exists; choose another"),
        ("+hydra.callbacks.x._target_=foo.Bar", "hydra.callbacks: Error locating target 'foo.Bar'"),
    ],
)
def test_a_grid_that_cannot_begin_is_refused(
    word: str, sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("afile").touch()
    with pytest.raises(UserError) as refusal:
        run_cells(word)
    assert str(refusal.value).startswith(sentence)


def test_a_launcher_needs_a_grid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(cli.train, monkeypatch, *SST2, "hydra/launcher=joblib") == 2
    assert capsys.readouterr().err == "hydra/launcher=joblib: launchers run grids; add -m\n"


# ---- processes


def test_the_threads_of_several_processes_are_not_inherited_by_later_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with launch._share_cores(3):
        assert os.environ["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with launch._share_cores(3):
        assert os.environ["OMP_NUM_THREADS"] == "5"
    assert os.environ["OMP_NUM_THREADS"] == "5"


def never(cfg: object) -> Outcome:
    raise AssertionError("no process may start")


@pytest.mark.parametrize(
    ("count", "gpus", "cores", "error"),
    [
        (9, "", 2, "processes=9: at most 8 on this machine, which has 2 cores"),
        (3, "0,1", 64, "processes=3: at most one per GPU, and 2 can be used here"),
    ],
)
def test_more_processes_than_the_machine_can_run(
    monkeypatch: pytest.MonkeyPatch, count: int, gpus: str, cores: int, error: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    planned = plan(compose([*SST2, f"processes={count}"]))
    outcome = launch.launch_processes(planned, never)
    assert outcome == make_outcome("refused", error)
    assert exit_code([outcome]) == 2
    assert launch._describe_excess(count - 1) is None


@pytest.mark.parametrize("flags", [(), ("-m", "seed=1,2")])
def test_absurdly_many_processes_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    tmp_path: Path,
) -> None:
    began = time.monotonic()
    overrides = (*flags, *SST2, "processes=100000", f"output={tmp_path}")
    assert call(cli.train, monkeypatch, *overrides) == 2
    assert time.monotonic() - began < 20
    assert "processes=100000: must be at most 4096" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
