"""Which runs share a table, a row and a test: those that were scored alike."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from made_reports import make_class_rows, make_full_run
from made_runs import make_run

from unipeft_run.commands.report import main
from unipeft_run.evaluation.metrics.by_name import Outputs, score
from unipeft_run.report.cells import group_runs
from unipeft_run.report.html.payload import collect_predictions
from unipeft_run.runs.reader import RunRecord, read_run

SST2 = ("task=sst2", "method=mam")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_twin(
    run_id: str, contents: dict[str, str], *overrides: str, metric: str = "accuracy"
) -> RunRecord:
    """Make another run of a configuration, with another content of its data or classes."""
    folder = make_run(*SST2, *overrides, run_id=run_id, **{f"test/{metric}": 50.0})
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | {"primary": f"test/{metric}"}))
    (folder / "contents.json").write_text(json.dumps(contents))
    return read_run(folder.rename(folder.with_name(run_id)))


def test_runs_on_changed_data_are_not_seeds_of_one_row() -> None:
    runs = [make_twin(name, {"data.test": name * 2}) for name in ("aaaaaaaa", "bbbbbbbb")]
    groups = group_runs(runs)
    assert [len(group.runs) for group in groups] == [1, 1]
    assert [group.data for group in groups] == ["data=aaaaaaaa", "data=bbbbbbbb"]


def test_runs_with_a_changed_class_are_rows_with_their_own_label() -> None:
    runs = [make_twin(name, {"x.Gate_source_": name}) for name in ("aaaaaaaa", "bbbbbbbb")]
    (group,) = group_runs(runs)
    assert {cell.label for cell in group.cells} == {"mam (aaaaaaaa)", "mam (bbbbbbbb)"}
    seeds = [make_twin("cccccccc", {"x.Gate_source_": "aaaaaaaa"}, "seed=3")]
    (group,) = group_runs([*runs, *seeds])
    assert sorted(len(cell.runs) for cell in group.cells) == [1, 2]


def move_inputs(run: RunRecord, place: str) -> RunRecord:
    """Record another place of the run's data and weights."""
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    config["task"]["path"], config["backbone"]["path"] = f"{place}/data", f"{place}/weights"
    (run.folder / "config.yaml").write_text(yaml.safe_dump(config))
    return read_run(run.folder)


def test_runs_on_the_same_data_and_weights_at_other_places_share_tables_and_rows() -> None:
    same = {"data.train": "e" * 8, "data.test": "d" * 8, "backbone.path": "b" * 8}
    runs = [
        move_inputs(make_twin("aaaaaaaa", same), "/here"),
        move_inputs(make_twin("bbbbbbbb", same, "seed=2"), "/there"),
        move_inputs(make_twin("cccccccc", same, "optim.lr=0.1"), "/there"),
        move_inputs(make_twin("dddddddd", {**same, "data.test": "f" * 8}, "seed=3"), "/here"),
    ]
    groups = group_runs(runs)
    place = "task.path=/here/data backbone.path=/here/weights data="
    assert [group.data for group in groups] == [f"{place}{'d' * 8}", f"{place}{'f' * 8}"]
    assert sorted(len(cell.runs) for cell in groups[0].cells) == [1, 2]
    assert not any("path" in cell.label for cell in groups[0].cells)


def test_scores_of_another_metric_are_in_another_table() -> None:
    runs = [make_twin("aaaaaaaa", {}), make_twin("bbbbbbbb", {}, "seed=2", metric="f1")]
    assert [group.data for group in group_runs(runs)] == ["metric=accuracy", "metric=f1"]


def test_classes_with_other_keywords_have_other_labels() -> None:
    forms = ("bottleneck", "bottleneck_zero", "hypercomplex")
    folders = [make_run("task=sst2", "method=parallel_ffn", f"form@ffn={form}") for form in forms]
    (group,) = group_runs([read_run(folder) for folder in folders])
    labels = {cell.label for cell in group.cells}
    assert len(labels) == 3 and not any("(" in label for label in labels)


def test_a_metric_that_was_computed_otherwise_is_not_compared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = [
        make_full_run(*SST2, f"seed={n}", rows=make_class_rows(n, 60, 80), final=80.0)
        for n in (1, 2)
    ]
    file = folders[1] / "metrics.json"
    for signature, code in (("percent 2.5.1", 0), ("percent of words", 2)):
        metrics = json.loads(file.read_text())
        metrics["signatures"] = dict.fromkeys(("accuracy", "per_example"), signature)
        file.write_text(json.dumps(metrics))
        assert main(["compare", *map(str, folders)]) == code
    assert "accuracy was not computed in the same way for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "lower"), [("accuracy", False), ("ter", True), ("pearson", True), ("chrf", False)]
)
def test_the_page_knows_which_score_of_an_example_is_better(name: str, lower: bool) -> None:
    folder = make_full_run(*SST2, rows=make_class_rows(1, 10, 80), final=80.0)
    metrics = json.loads((folder / "metrics.json").read_text())
    outputs = {"accuracy": [1, 0], "pearson": [1.0, 2.0]}.get(name, ["a b", "c d"])
    metrics["signatures"] = score([name], Outputs(outputs, outputs)).signatures
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (group,) = collect_predictions(group_runs([read_run(folder)]), 5)
    assert group["lower"] is lower


def test_an_experiment_without_printed_results_shows_our_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lab" / "experiment").mkdir(parents=True)
    file = tmp_path / "lab" / "experiment" / "mine.yaml"
    file.write_text("cells:\n- run: [task=sst2, method=mam]\n- run: [task=sst2, method=bitfit]\n")
    make_run(*SST2, primary=81.5)
    assert main(["outputs", "--experiment", "mine", "--config-dir", "lab"]) == 0
    out = capsys.readouterr().out
    assert (
        "accuracy ours" in out and "81.50" in out and "printed" not in out.replace("% printed", "")
    )


def test_a_row_of_a_peft_method_has_the_runs_of_that_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lab" / "experiment").mkdir(parents=True)
    cells = [f"{{row: {name}, run: [task=sst2, method=peft/{name}]}}" for name in ("lora", "vera")]
    (tmp_path / "lab" / "experiment" / "mine.yaml").write_text(f"cells: [{', '.join(cells)}]\n")
    make_run("task=sst2", "method=peft/lora", "peft.config.r=4")
    words = ["outputs", "--experiment", "mine", "--config-dir", "lab", "--format", "csv"]
    assert main(words) == 0
    lora, vera = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (lora["seeds"], vera["seeds"]) == ("1", "")
    assert "peft.config.r=4" in lora["differs in"]
