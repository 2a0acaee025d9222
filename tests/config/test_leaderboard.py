"""The leaderboard rows in conf/experiment/seeds_*.yaml: numbers, sources, configurations, sizes."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_run
from sampling import sampled
from tiny_config import configured

from unipeft_run.commands.params import main as params
from unipeft_run.commands.report import main as report
from unipeft_run.config import implied_overrides, run_id
from unipeft_run.config.experiments import (
    STATUS,
    Cell,
    key_values,
    names,
    read,
    read_leaderboards,
)
from unipeft_run.config.messages import options
from unipeft_run.deltas.counting.counts import counts
from unipeft_run.runs.outcome import Outcome
from unipeft_run.sweeps.leaderboard import print_leaderboard

ROWS = {  # experiment -> (task, number on the leaderboard, status of its source)
    "seeds_cifar100": ("cifar100", 91.7, "C"),
    "seeds_piqa": ("piqa", 69.8, "A"),
    "seeds_sst2": ("sst2", 96.1, "B"),
    "seeds_sst2_test": ("sst2", 83.9, "C"),
    "seeds_didemo": ("didemo", 36.4, "C"),
    "seeds_obqa": ("obqa", 76.3, "A"),
    "seeds_commonsense": ("commonsense", 81.4, "A"),
    "seeds_arc_challenge": ("arc_challenge", 54.2, "A"),
    "seeds_boolq": ("boolq", 75.3, "C"),
    "seeds_gsm8k": ("gsm8k", 56.4, "B"),
}
BUILT = [name for name, (task, *_) in ROWS.items() if task in options("task")]
PAGE = Path(__file__).parents[2] / "docs" / "leaderboard.md"


def cells(name: str) -> tuple[Cell, ...]:
    found = read(name)
    assert found is not None
    return found.cells


def test_there_is_an_experiment_for_every_row() -> None:
    assert {board.name for board in read_leaderboards()} == set(ROWS)
    assert set(ROWS) == {name for name in names() if name.startswith("seeds_")}


@pytest.mark.parametrize("name", ROWS)
def test_the_first_cell_prints_the_leaderboards_number(name: str) -> None:
    task, printed, status = ROWS[name]
    cell = cells(name)[0]
    assert (cell.task, cell.printed[0], cell.status) == (task, printed, STATUS[status])
    assert cell.note and cell.source
    assert (cell.source == "unknown") == (status == "C")


@pytest.mark.parametrize("name", ROWS)
def test_the_page_says_the_same(name: str) -> None:
    _, printed, status = ROWS[name]
    (line,) = re.findall(rf"^\|.*`{name}`.*$", PAGE.read_text(), re.MULTILINE)
    assert f" {printed} |" in line
    assert f"| {STATUS[status]} |" in line


@pytest.mark.parametrize(("name", "scale"), sampled(product(BUILT, ["paper", "mini"]), 3))
def test_every_cell_composes_at_both_scales(name: str, scale: str) -> None:
    ids = []
    for cell in cells(name):
        config = configured(*cell.overrides[scale], f"scale={scale}")
        assert (config.task.name, config.scale) == (cell.task, scale)
        wanted = key_values(cell.overrides["paper"])["backbone"]
        assert scale == "mini" or config.backbone.name == wanted
        ids.append(run_id(config))
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", [n for n in BUILT if n in ("seeds_piqa", "seeds_boolq")])
def test_milora_prints_as_many_parameters(name: str) -> None:
    config = configured(*cells(name)[0].overrides["paper"])
    assert counts(config)["stored"] == 2 * 2 * 4096 * 160 * 32 == 83_886_080


@pytest.mark.skipif("commonsense" not in options("task"), reason="the task is not there yet")
@pytest.mark.parametrize(
    ("backbone", "stored", "share"),
    [("llama_7b", 247_463_936, 3.54), ("llama_13b", 387_973_120, 2.89)],
)
def test_llm_adapters_print_as_many_parameters(
    backbone: str, stored: int, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["task=commonsense", "method=parallel_ffn", f"backbone={backbone}"]
    assert params([*words, "--format", "json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["stored"] == table["trained"] == stored
    assert round(100 * stored / (table["backbone"] + stored), 2) == share
    (row,) = table["paper"]
    assert row["percent"] == share
    assert row["note"].startswith("of the backbone and the adapters together")
    assert params(words) == 0
    assert f"prints {share} % in LLaMA" in capsys.readouterr().out


# Axes that presets choose


def test_a_preset_chooses_axes_that_the_command_line_overrides() -> None:
    words = ["task=commonsense", "method=parallel_ffn"]
    chosen = ["representation@ffn=ffn_up_down", "form@ffn=bottleneck_tanh"]
    assert implied_overrides(words) == implied_overrides([*words, "scale=mini"]) == chosen
    assert implied_overrides([*words, "representation@ffn=ffn"]) == chosen[1:]
    assert implied_overrides(["task=sst2", "method=parallel_ffn"]) == []
    assert implied_overrides(["task=commonsense", "method=lora_ffn"]) == []


def test_the_adapter_of_llm_adapters_has_two_matrices_and_tanh() -> None:
    form = configured("task=mnli", "method=parallel_ffn", "form@ffn=bottleneck_tanh").slots()["ffn"]
    keywords = form.form.keywords
    assert (keywords["activation"], keywords["bias"], keywords["dropout"]) == ("tanh", False, 0.0)
    assert (keywords["norm"], keywords["init"]) == ("none", "bert")


# Reports and the closing table


def outcome(score: Any) -> Outcome:
    metrics = {"primary": "test/accuracy", "test/accuracy": score}
    return Outcome(state="done", error="", seconds=1.0, metrics=metrics)


def test_the_closing_table_shows_the_printed_score_and_its_source(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (cell,) = cells("seeds_piqa")
    rows = [(cell.row, ["seed=1"]), (cell.row, ["seed=2"]), (cell.row, ["seed=3"])]
    outcomes = [outcome(70.0), outcome(10.0), outcome(71.0)]
    print_leaderboard(rows, outcomes, ["experiment=seeds_piqa", "scale=mini"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["row", "metric", "ours", "printed", "status", "source"]
    assert re.search(r"accuracy\s+70.00\s+69.8\s+identified\s+MiLoRA", lines[2]), "the median"
    assert "these scores are not the paper's" in lines[-1]
    swept = [(name, [*own, lr]) for lr in ("optim.lr=1e-3", "optim.lr=0.1") for name, own in rows]
    print_leaderboard(swept, [*outcomes, outcome(4.0), *outcomes[:2]], ["experiment=seeds_piqa"])
    text = capsys.readouterr().out
    for lr, median in (("1e-3", "70.00"), ("0.1", "10.00")):
        assert re.search(rf"r=160 optim.lr={lr}\s+accuracy\s+{median}\s+69.8\s+identified", text)
    failed = Outcome(state="failed", error="", seconds=0.0, metrics={})
    print_leaderboard(rows[:2], [failed, outcomes[0]], ["experiment=seeds_obqa,seeds_piqa"])
    assert re.search(r"accuracy\s+70.00\s+69.8\s+identified", capsys.readouterr().out)
    print_leaderboard(rows[:1], [failed], ["experiment=seeds_piqa"])
    print_leaderboard([("Full-FT", [])], [outcomes[0]], ["experiment=table2"])
    assert capsys.readouterr().out == ""


def test_a_report_shows_the_source_and_what_a_miniature_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(*cells("seeds_sst2_test")[0].overrides["mini"], primary=61.0)
    assert report(["outputs", "--experiment", "seeds_sst2_test"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"83.9\s+61.00\s+not found\s+unknown", text)
    assert "scale mini uses other data and another backbone" in text
