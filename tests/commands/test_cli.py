"""The console commands: exit codes, help, one run, many, evaluation."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_cli import FAILURES, call, stub_runs

from unipeft_run import cli
from unipeft_run.config import compose, identity, plan

SST2 = ("task=sst2", "method=mam", "scale=mini")
Train = Callable[..., int]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    return stub_runs(monkeypatch)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Train:
    return lambda *arguments: call(cli.train, monkeypatch, *arguments)


# ---- help and configuration


def test_help_lists_every_choice(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--help") == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 53
    for word in ("usage: unipeft train", "scaled_parallel_ffn", "wmt16_en_ro", "gated", "-m"):
        assert word in text
    assert text.count("  unipeft train ") == 5


def test_cfg_job_prints_the_configuration(
    train: Train, capsys: pytest.CaptureFixture[str], runs: list[Any]
) -> None:
    assert train(*SST2, "--cfg", "job", "seed=5") == 0
    text = capsys.readouterr().out
    assert "seed: 5" in text
    assert "hydra" not in text
    assert runs == []


def test_flags_may_appear_anywhere(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--cfg", "job", "task=sst2", "--resolve", "method=mam") == 0
    assert "rank: 16" in capsys.readouterr().out


def test_classes_from_the_data_are_shown(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    words = "scale=mini", "task=cifar100", "method=parallel_ffn"
    assert train("--cfg", "job", "--resolve", *words) == 0
    assert "\n  labels:\n  - " in capsys.readouterr().out


def test_shell_completion_offers_the_choices(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "unipeft-train task=sst2 method=lora"
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert train("-sc", "query=bash") == 0
    assert capsys.readouterr().out.split() == ["method=lora_attn", "method=lora_ffn"]


# ---- one run


def test_one_run_reaches_run_and_leaves_no_other_file(
    train: Train, runs: list[Any], tmp_path: Path
) -> None:
    assert train(*SST2, "seed=5") == 0
    assert [(config["seed"], config["method"]) for config in runs] == [(5, "mam")]
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["sst2"]
    assert train(*SST2, "seed=5") == 0, "a skipped run succeeds"


def test_one_run_composes_and_resolves_once(
    train: Train, runs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for module, name in ((sys.modules[compose.__module__], "_compose"), (identity, "resolve")):
        original = getattr(module, name)

        def count(*args: Any, name: str = name, original: Any = original) -> Any:
            calls.append(name)
            return original(*args)

        monkeypatch.setattr(module, name, count)
    assert train(*SST2, "seed=5") == 0
    assert calls == ["_compose", "resolve"]


@pytest.mark.parametrize(("seed", "code"), [(66, 1), (67, 2), (68, 130), (69, 7)])
def test_exit_codes(
    train: Train, runs: list[Any], capsys: pytest.CaptureFixture[str], seed: int, code: int
) -> None:
    assert train(*SST2, f"seed={seed}") == code
    stderr = capsys.readouterr().err
    assert ("Traceback" in stderr) == (code == 1)
    if seed in (66, 67):
        assert stderr.splitlines()[-1].endswith(str(FAILURES[seed]))


# ---- many


def test_a_grid_runs_every_cell_and_prints_its_table(
    train: Train, runs: list[Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    grid = ("task=sst2", "method=mam,lora_attn,bitfit", "seed=1,2", "scale=mini")
    assert train("-m", *grid) == 0
    assert [(config["method"], config["seed"]) for config in runs] == [
        (method, seed) for method in ("mam", "lora_attn", "bitfit") for seed in (1, 2)
    ]
    table = capsys.readouterr().out
    assert table.count("done") == 6
    assert table.count("test/x 87.25") == 6
    assert "method=bitfit seed=2" in table
    assert "task=sst2" not in table, "only overrides that differ"
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    assert train("-m", *grid) == 0
    assert capsys.readouterr().out.count("skipped") == 6


@pytest.mark.slow
def test_the_design_s_example_is_sixteen_cells(train: Train, runs: list[Any]) -> None:
    assert train(
        *("-m", "task=xsum", "method=adapter_ffn", "insertion@ffn=sequential,parallel"),
        *("ffn.bottleneck=30,200,512,1024", "seed=42,2"),
    ) == 0  # fmt: skip
    assert len({(c["ffn"]["insertion"], c["ffn"]["bottleneck"], c["seed"]) for c in runs}) == 16


def test_epochs_reach_the_run(train: Train, runs: list[Any]) -> None:
    assert train(*SST2, "recipe.epochs=3") == 0
    assert train("-m", *SST2, "recipe.epochs=1,2") == 0
    ends = [(c["recipe"]["max_steps"], c["recipe"]["epochs"]) for c in runs]
    assert ends == [(None, 3), (None, 1), (None, 2)]


def test_a_failing_cell_does_not_stop_the_grid(
    train: Train, runs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("-m", *SST2, "seed=1,66,67,2") == 1
    out, err = capsys.readouterr()
    assert [config["seed"] for config in runs] == [1, 66, 67, 2]
    states = {line.split()[0]: line.split()[1] for line in out.splitlines() if "seed=" in line}
    assert states == {"seed=1": "done", "seed=66": "failed", "seed=67": "refused", "seed=2": "done"}
    assert re.search(r"failed: seed=66: .*, line \d+, in run: RuntimeError: the disk is full", err)
    assert train("-m", *SST2, "seed=67") == 2, "every cell was refused"


def test_illegal_and_equal_cells_are_not_run(
    train: Train, runs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("-m", *SST2, "composition@ffn=gated,add", "ffn.scale=4,2") == 0
    out, err = capsys.readouterr()
    assert len(runs) == 1
    assert out.count("illegal") == 2
    assert out.count("equal") == 1, "without a scale 4 and 2 are one run"
    assert "illegal: composition@ffn=gated ffn.scale=4: slot ffn: composition gated needs" in err
    assert "[1/1] composition@ffn=add ffn.scale=4" in err.splitlines()


@pytest.mark.parametrize("words", [(), ("-m", "seed=1,2")])
def test_a_fixed_size_that_nothing_takes_is_refused(
    words: tuple[str, ...], train: Train, runs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*SST2, "composition@ffn=add", "ffn.scale=4", *words) == 2
    assert "ffn.scale=4 has no effect here: form" in capsys.readouterr().err
    assert not runs


def test_equal_cells_keep_a_name_in_the_table(
    train: Train, runs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("-m", *SST2, "seed=3,3") == 0
    assert sum("seed=3" in line for line in capsys.readouterr().out.splitlines()) == 2


def test_an_unknown_choice_stops_before_the_first_cell(
    train: Train, runs: list[Any], tmp_path: Path
) -> None:
    assert train("-m", "task=sst2", "method=mam,lora", "scale=mini") == 2
    assert runs == []
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_ends_a_grid(train: Train, runs: list[Any]) -> None:
    assert train("-m", *SST2, "seed=1,68,2") == 130
    assert [config["seed"] for config in runs] == [1, 68]


def test_ranges_and_globs_are_grids_too(train: Train, runs: list[Any]) -> None:
    assert train("-m", "task=sst2", "method=glob(lora_*)", "seed=range(1,3)", "scale=mini") == 0
    assert [(c["method"], c["seed"]) for c in runs] == [
        *(("lora_attn", 1), ("lora_attn", 2), ("lora_ffn", 1), ("lora_ffn", 2))
    ]


# ---- evaluation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(plan(compose(SST2)).config.plain()))
    return folder


def test_evaluation_prints_the_metrics_of_a_run_folder(
    folder: Path,
    runs: list[Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert call(cli.evaluate, monkeypatch, f"run={folder}", "split=validation") == 0
    assert capsys.readouterr().out == "validation/accuracy 87.25\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "no run is named"),
        (["split=test"], "no run is named"),
        (["run=nowhere"], "not a run folder"),
        (["run=run", "splt=test"], "did you mean split?"),
        (["run=evil"], "names the class os.system"),
    ],
)
def test_evaluation_errors_are_one_sentence(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    part: str,
) -> None:
    (folder.parent / "evil").mkdir()
    (folder.parent / "evil" / "config.yaml").write_text("task: {_target_: os.system}\n")
    assert call(cli.evaluate, monkeypatch, *arguments) == 2
    stderr = capsys.readouterr().err
    assert part in stderr
    assert len(stderr.splitlines()) == 1


# ---- extension


def test_a_user_defined_form_reaches_the_run(train: Train, runs: list[Any], tmp_path: Path) -> None:
    """`--config-dir` and hydra.searchpath both find the YAML file of the form."""
    (tmp_path / "mine" / "form").mkdir(parents=True)
    (tmp_path / "mine" / "form" / "doubled.yaml").write_text(
        "form:\n  _target_: my_forms.Doubled\n  _partial_: true\n"
    )
    assert train(*SST2, "form@ffn=doubled", "--config-dir", "mine") == 0
    path = f"hydra.searchpath=[file://{tmp_path}/mine]"
    assert train("-m", *SST2, "form@ffn=doubled,bottleneck", path) == 0
    targets = [config["ffn"]["form"]["_target_"] for config in runs]
    assert targets[:2] == ["my_forms.Doubled", "my_forms.Doubled"]
    assert targets[2].endswith("Bottleneck")
