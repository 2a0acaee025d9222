"""unipeft-report compare: runs by folder or id, corpus metrics, every format, refusals."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from made_reports import make_class_rows, make_full_run, make_text_rows, write_lines

from unipeft_run.commands.report import main
from unipeft_run.evaluation.metrics.by_name import Outputs, score

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_pair(*accuracies: float) -> list[Path]:
    return [
        make_full_run(
            f"seed={n}", "task=sst2", "method=mam", rows=make_class_rows(n, 150, a), final=a
        )
        for n, a in enumerate(accuracies)
    ]


def change_metrics(folder: Path, **changed: Any) -> None:
    content = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**content, **changed}))


def compared(capsys: Capture, *arguments: str) -> list[dict[str, str]]:
    capsys.readouterr()
    assert main(["compare", *arguments, "--format", "csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_runs_are_compared_with_the_first(capsys: Capture) -> None:
    first, second, third = make_pair(60, 90, 62)
    head, *rows = compared(capsys, first.name, str(second), third.name)
    assert head["method"] == f"sst2/mam/{first.name} (baseline)" and head["p Holm"] == ""
    better, same = rows
    assert float(better["difference"]) == float(better["accuracy"]) - float(head["accuracy"]) > 15
    assert [row["significant"] for row in rows] == ["yes", "no"]
    for name in ("p bootstrap", "p randomisation", "p McNemar", "p Holm"):
        assert float(better[name]) < 0.001 < 0.05 < float(same[name]), name
    assert float(better["p Holm"]) == 2 * float(better["p randomisation"])
    assert "over 150 examples" in head["notes"]


def test_the_text_table_keeps_ids_and_numbers_whole(capsys: Capture) -> None:
    first, second = make_pair(60, 90)
    assert main(["compare", first.name, second.name]) == 0
    out = capsys.readouterr().out
    assert f"sst2/mam/{second.name}  " in out and " 0.0001 " in out


def test_bleu_is_recomputed_from_the_predictions(capsys: Capture) -> None:
    from unipeft_run.evaluation.metrics import bleu

    folders = []
    for seed, noise in ((1, 0.2), (2, 0.6)):
        rows = make_text_rows(seed, 40, noise)
        scores = bleu([row["prediction"] for row in rows], [row["reference"] for row in rows], "ro")
        folder = make_full_run("task=xsum", "method=mam", f"seed={seed}", rows=rows, final=30)
        metrics = {f"test/{name}": value for name, value in scores.metrics.items()}
        change_metrics(folder, primary="test/bleu_paper", signatures=scores.signatures, **metrics)
        folders.append(str(folder))
    for metric in ("bleu", "bleu_paper", "chrf"):
        head, row = compared(capsys, *folders, "--metric", metric)
        assert float(row["difference"]) == pytest.approx(float(row[metric]) - float(head[metric]))
        assert float(row["difference"]) < -10 and row["significant"] == "yes"
        assert "p McNemar" not in row


def test_accuracy_is_tested_whatever_the_first_metric_is(capsys: Capture) -> None:
    pair, options = make_pair(60, 90), ("--metric", "accuracy")
    signatures = score(["f1", "accuracy"], Outputs([0, 1], [1, 1])).signatures
    for folder in pair:
        change_metrics(folder, **{"primary": "test/f1", "test/f1": 7.0, "signatures": signatures})
    _, row = compared(capsys, *map(str, pair), *options)
    low, high = (float(row[f"95 % interval {side}"]) for side in ("low", "high"))
    assert low < float(row["difference"]) < high
    assert row["significant"] == "yes" and "95 % interval" not in row
    assert main(["compare", *map(str, pair)]) == 2
    expected = "f1 cannot be tested: its predictions store per-example scores of accuracy (%)"
    assert expected in capsys.readouterr().err


REFUSALS = [
    "one",
    "unknown id",
    "other task",
    "other examples",
    "no predictions",
    "misspelt metric",
    "other metric",
    "corpus metric",
    "wrong scores",
]


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_compared_is_one_sentence(capsys: Capture, case: str) -> None:
    first, second = make_pair(60, 90)
    arguments, part = [first.name, second.name], f"sst2/mam/{second.name}"
    file = second / "predictions" / "test.jsonl"
    if case == "one":
        arguments, part = [first.name], "name at least two runs to compare"
    elif case == "unknown id":
        arguments, part = [first.name, f"{second.name}0"], f"did you mean {second.name}?"
    elif case == "other task":
        rows = make_text_rows(1, 9, 0.1)
        other = make_full_run("task=xsum", "method=mam", rows=rows, final=30)
        arguments, part = [first.name, other.name], f"xsum/mam/{other.name} is a run of task xsum"
    elif case == "other examples":
        rows = [{**row, "id": f"x{row['id']}"} for row in make_class_rows(1, 150, 90)]
        write_lines(file, rows)
    elif case == "no predictions":
        file.unlink()
    elif case == "misspelt metric":
        part = "metric=acuracy is unknown (did you mean accuracy?)"
        arguments += ["--metric", "acuracy"]
    elif case == "other metric":
        part = "loss cannot be tested: its predictions store per-example scores of percent"
        arguments += ["--metric", "loss"]
    elif case == "corpus metric":
        change_metrics(first, **{"test/ter": 80.0, "signatures": {"per_example": "ter: nrefs:1"}})
        part = "ter cannot be tested: it is not a mean over examples"
        arguments += ["--metric", "ter"]
    else:
        assert case == "wrong scores"
        write_lines(file, make_class_rows(1, 149, 10))
        part = "its predictions score"
    assert main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and part in err and len(err.splitlines()) == 1
