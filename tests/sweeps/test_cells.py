"""Experiments: running their cells, planning them, comparing runs with the paper."""

from __future__ import annotations

import csv
import io
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from made_runs import make_run, planned
from tiny_cli import call

from unipeft_run import cli
from unipeft_run.commands.report import main
from unipeft_run.config import PlannedRun, run_id
from unipeft_run.config.experiments import expand, refuse_experiment
from unipeft_run.config.resolve import resolve_data
from unipeft_run.errors import UserError
from unipeft_run.runs.lock import RunLock

Train = Callable[..., int]
TABLE5 = ("experiment=table5_xsum", "scale=mini")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Collect the configurations that reach `run`, which is a stub here."""
    seen: list[dict[str, Any]] = []

    def run(planned: PlannedRun) -> dict[str, Any]:
        seen.append(planned.config.plain())
        return {"state": "done"}

    stub = ModuleType("unipeft_run.run")
    stub.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unipeft_run.run", stub)
    return seen


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Train:
    return lambda *overrides: call(cli.train, monkeypatch, *overrides)


def sheet(capsys: pytest.CaptureFixture[str], *overrides: str) -> list[dict[str, str]]:
    capsys.readouterr()
    assert main([*overrides, "--format", "csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


@pytest.mark.slow
def test_cells_are_not_a_product_but_multiply_with_lists(
    train: Train, runs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("-m", *TABLE5, "limit.train=8", "seed=1,2") == 0
    found = [(c["method"], c["ffn"]["bottleneck"], c["ffn"]["scale"], c["seed"]) for c in runs]
    once = [
        ("lora_ffn", 16, 4),
        ("lora_ffn", 16, 1),
        ("parallel_ffn", 64, None),
        ("scaled_parallel_ffn", 64, 4),
        ("scaled_parallel_ffn", 64, 4),
    ]
    assert found == [(*cell, seed) for seed in (1, 2) for cell in once]
    assert {(c["limit"]["train"], c["scale"]) for c in runs} == {(8, "mini")}
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    last = ["method=scaled_parallel_ffn", "composition@ffn=learned_scale", "seed=2", "done"]
    assert lines[-1][:-1] == last


def test_the_paper_scale_has_the_papers_sizes() -> None:
    rows = dict(expand(["experiment=table12_xsum", "seed=1"]))
    assert len(rows) == 14
    expected = ["task=xsum", "method=parallel_ffn", "ffn.bottleneck=1024", "seed=1"]
    assert rows["FFN: Parallel adapter, r=1024"] == expected
    assert rows["FFN: Parallel adapter, r=200"] == expected[:2] + expected[3:]


@pytest.mark.slow
def test_equal_and_illegal_cells_are_distinguished(
    train: Train, runs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("-m", "experiment=table6_xsum", "scale=mini", "ffn.bottleneck=4") == 0
    assert {c["method"] for c in runs} == {
        *("pfeiffer", "lora_ffn", "parallel_ffn", "parallel_attn_ffn", "prefix_lora_ffn", "mam")
    }, "the command line overrides the cell; if the cell has no such slot, it is illegal"
    capsys.readouterr()
    assert train("-m", "experiment=table6_xsum", "scale=mini", "method=full") == 0
    assert "equal" in capsys.readouterr().out


def test_task_and_method_filter_the_cells() -> None:
    assert len(expand(["experiment=table6"])) == 22
    assert len(expand(["experiment=table6", "task=xsum"])) == 11
    assert [row for row, _ in expand(["experiment=table6", "task=xsum", "method=mam"])] == [
        "MAM Adapter, l=30, r=512"
    ]


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["experiment=table6_xsum"], "experiment=table6_xsum is 11 runs; add -m"),
        (["experiment=table6_xsum", "--cfg", "job"], "add -m to run each of them"),
        (["-m", "experiment=table6_xsu"], "did you mean table6_xsum?"),
        (["-m", "experiment=table6_xsum", "task=sst2"], "has no cell of task=sst2"),
        (["-m", "experiment=table6_xsum", "scale=big"], "scale=big is unknown"),
        (["-m", "experiment=table6_xsum", "seed=[1"], "cannot read"),
        (["-m", "experiment=table5_xsum", "recipe.max_stps=3"], "did you mean recipe.max_steps"),
    ],
)
def test_user_errors_are_one_sentence(
    train: Train,
    runs: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    part: str,
) -> None:
    assert train(*overrides) == 2
    err = capsys.readouterr().err
    assert part in err
    assert len(err.splitlines()) == 1
    assert runs == []


def test_an_experiment_of_your_own(train: Train, runs: list[dict[str, Any]]) -> None:
    Path("mine/experiment").mkdir(parents=True)
    file = Path("mine/experiment/pairs.yaml")
    file.write_text(
        "cells:\n"
        "  - run: [task=sst2, method=mam, ffn.bottleneck=4, optim.lr=1e-3]\n"
        "  - run: [task=sst2, method=bitfit, optim.lr=3e-3]\n"
    )
    assert train("-m", "experiment=pairs", "scale=mini", "--config-dir", "mine") == 0
    assert [(c["method"], c["optim"]["lr"]) for c in runs] == [("mam", 1e-3), ("bitfit", 3e-3)]
    for broken in ("cells: 3", "cells: [{row: a}]", "cells: [{run: mam}]", "cells: [a: [1"):
        file.write_text(broken)
        assert train("-m", "experiment=pairs", "--config-dir", "mine") == 2, broken


def test_experiments_without_cells_are_left_to_hydra() -> None:
    for overrides in (["task=sst2"], ["experiment=null"], ["experiment=glob(table6_*)"]):
        kept = [word for word in overrides if word != "experiment=null"]  # Hydra refuses it
        assert expand(overrides) == [("", kept)]
        refuse_experiment(overrides)


# ---- the plan


@pytest.mark.slow
def test_a_plan_lists_missing_cells_and_their_commands(
    capsys: pytest.CaptureFixture[str], train: Train, runs: list[dict[str, Any]]
) -> None:
    done = make_run("task=xsum", "method=scaled_parallel_ffn")
    half = make_run("task=xsum", "method=parallel_ffn")
    (half / "metrics.json").unlink()
    (half / "status.json").write_text('{"state": "failed", "step": 3, "error": "no memory"}')
    rows = sheet(capsys, "plan", "table5_xsum", "scale=mini")
    assert [row["state"] for row in rows] == [
        "missing",
        "missing",
        "failed at step 3: no memory",
        "done",
        "missing",
    ]
    assert rows[3]["command"] == ""
    for row in rows:
        if row["command"]:
            program, command, *overrides = shlex.split(row["command"])
            assert (program, command) == ("unipeft", "train")
            assert train(*overrides) == 0
    assert len(runs) == 4
    assert {run_id(resolve_data(config)) for config in runs}.isdisjoint({done.name})
    assert half.name in {run_id(resolve_data(config)) for config in runs}


def test_a_plan_expands_lists_and_marks_equal_cells(capsys: pytest.CaptureFixture[str]) -> None:
    rows = sheet(capsys, "plan", "table6_xsum", "scale=mini", "seed=1,2", "method=full")
    copied, ours = "Full fine-tuning (copied)", "Full fine-tuning (the authors' run)"
    expected = []
    for seed in ("seed=1", "seed=2"):
        same = f"the same run as {copied} {seed}"
        expected += [(f"{copied} {seed}", "missing"), (f"{ours} {seed}", same)]
    assert [(row["row"], row["state"]) for row in rows] == expected
    assert main(["plan", "table6_xsum", "method=full"]) == 0
    out = capsys.readouterr().out
    assert "2 cells, 0 done, 1 to run" in out
    assert "unipeft train -m experiment=table6_xsum method=full" in out


def test_a_plan_has_no_command_for_a_run_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    command = ("plan", "table6_xsum", "scale=mini", "method=bitfit")
    folder = planned("task=xsum", "method=bitfit").folder
    with RunLock(folder):  # it prepares, and has written nothing yet
        (row,) = sheet(capsys, *command)
    assert (row["state"], row["command"]) == ("running at step 0", "")
    folder.rmdir()
    (make_run("task=xsum", "method=bitfit") / "status.json").write_text("{")
    (row,) = sheet(capsys, *command)
    assert row["state"].startswith("status.json is damaged") and row["command"] == ""


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["plan", "table66"], "did you mean table6"),
        (["plan", "table6_xsum", "sed=3"], "did you mean seed?"),
        (["plan", "table6_xsum", "scale"], "not key=value"),
        ([".", "--experiment", "table66"], "did you mean table6"),
    ],
)
def test_a_user_error_in_a_plan_is_one_sentence(
    capsys: pytest.CaptureFixture[str], overrides: list[str], part: str
) -> None:
    assert main(overrides) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert part in err


# ---- compared with the paper


def test_tables_show_printed_results_and_our_runs(capsys: pytest.CaptureFixture[str]) -> None:
    more = {"test/rouge1": 30.0, "test/rougeLsum": 25.0}
    for seed in (1, 2):
        overrides = "task=xsum", "method=scaled_parallel_ffn", f"seed={seed}"
        make_run(*overrides, primary=20.0 + seed, **more)
    make_run("task=xsum", "method=scaled_parallel_ffn", "recipe.max_steps=9", primary=1.0, **more)
    make_run("task=xsum", "method=mam", primary=2.0, **more)
    make_run("task=sst2", "method=mam")
    rows = sheet(capsys, "outputs", "--experiment", "table5_xsum")
    assert len(rows) == 6, "five cells, one of them trained in two ways"
    ours = [row for row in rows if row["row"] == "Scaled PA, r=512, s=4"]
    assert {row["differs in"] for row in ours} == {"", "recipe.max_steps=9"}
    full = next(row for row in ours if not row["differs in"])
    assert (full["seeds"], float(full["rouge2 ours"])) == ("2", 21.5)
    assert float(full["rouge2 ours std"]) == pytest.approx(0.5**0.5)
    assert (float(full["rouge2 printed"]), float(full["rougeLsum printed"])) == (21.54, 36.58)
    assert rows[0]["rouge2 ours"] == ""
    assert "not with the paper's" in rows[0]["notes"]
    assert "R-LSum here and R-L in table 12" in rows[0]["notes"]


@pytest.mark.slow
def test_tables_without_runs_show_only_printed_results(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("task=sst2", "method=mam")
    assert main(["outputs", "--experiment", "table6", "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert "45.06 +- 0.08" in out
    assert "37.5 +- 0.1" in out
    assert "7.2 % is r=120" in out
    assert out.count("## Table 6") == 2


def test_an_unknown_experiment_is_a_user_error() -> None:
    with pytest.raises(UserError, match="is unknown"):
        refuse_experiment(["experiment=nothing"])
