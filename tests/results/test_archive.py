"""Records of runs: written, read, restored as run folders, compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import archive
import pytest
from made_reports import make_class_rows, make_full_run, make_text_rows
from repeat import list_differences

from unipeft_run.evaluation.metrics import bleu
from unipeft_run.report.statistics import read_sample
from unipeft_run.runs.finished import finished_runs
from unipeft_run.runs.folder import report_finished
from unipeft_run.runs.reader import RunRecord, read_run


@pytest.fixture(params=["accuracy", "rouge", "bleu"])
def run(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunRecord:
    """A finished run whose metric is a mean over examples, or computed over the corpus."""
    monkeypatch.chdir(tmp_path)
    if request.param == "accuracy":
        rows = make_class_rows(1, 50, 80)
        return read_run(make_full_run("task=sst2", "method=mam", rows=rows, final=80.0))
    rows = make_text_rows(1, 40, 0.3)
    if request.param == "rouge":
        rows = [{**row, "score": 100 / (3 + n)} for n, row in enumerate(rows)]
        return read_run(make_full_run("task=xsum", "method=mam", rows=rows, final=30.0))
    texts = ([row[side] for row in rows] for side in ("prediction", "reference"))
    scores = bleu(*texts, "ro")
    folder = make_full_run("task=wmt16_en_ro", "method=mam", rows=rows, final=30.0)
    content = json.loads((folder / "metrics.json").read_text())
    content |= {f"test/{name}": value for name, value in scores.metrics.items()}
    content |= {"primary": "test/bleu_paper", "signatures": scores.signatures}
    (folder / "metrics.json").write_text(json.dumps(content))
    return read_run(folder)


def test_a_record_keeps_what_reports_need(run: RunRecord, tmp_path: Path) -> None:
    record = archive.make_record(run, "a cell")
    archive.write_records(tmp_path / "runs.parquet", [record])
    (stored,) = archive.read_records(tmp_path / "runs.parquet")
    metric = run.metrics["primary"].removeprefix("test/")
    expected = read_sample(run, metric)[1]
    assert stored.sample.total == pytest.approx(expected.total, abs=1e-4)
    assert stored.sample.values.shape == expected.values.shape
    assert stored.scores == dict(run.metrics)
    assert not list_differences(record, stored)


def test_a_record_holds_neither_texts_nor_paths(run: RunRecord, tmp_path: Path) -> None:
    record = archive.make_record(run, "a cell")
    content = json.dumps(archive.row_of(record), ensure_ascii=False)
    for row in run.predictions("test"):
        for text in (row["reference"], row["prediction"]):
            assert len(text.split()) == 1 or text not in content
    assert str(tmp_path) not in content


def test_restored_runs_count_as_done_and_are_reported(run: RunRecord, tmp_path: Path) -> None:
    record = archive.make_record(run, "a cell")
    output = tmp_path / "restored"
    assert [archive.restore([record], output) for _ in range(2)] == [1, 0]
    (found,), left_out = finished_runs([output])
    assert not left_out
    assert found.folder.relative_to(output) == run.folder.relative_to("outputs")
    assert report_finished(found.folder) == dict(run.metrics)
    assert list(found.train_records()) == list(run.train_records())
    if record.width == 1:
        metric = run.metrics["primary"].removeprefix("test/")
        assert read_sample(found, metric)[1].total == record.sample.total


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"weights": "other"}, "the weights differ"),
        ({"statistics": [0.0]}, "scores of examples differ"),
        ({"metrics": json.dumps({"primary": "x", "test/loss": 0.5000001})}, "test/loss: "),
        ({"metrics": json.dumps({"primary": "x", "test/loss": 0.5, "wall_seconds": 9})}, None),
    ],
)
def test_differences_of_two_runs_are_named(change: dict[str, object], expected: str | None) -> None:
    metrics = json.dumps({"primary": "x", "test/loss": 0.5, "wall_seconds": 1})
    first = archive.Record("c", 1, "id", "done", "m", "", metrics, "{}", "", "w", "e", [1.0], 1)
    found = list_differences(first, replace(first, **change))
    assert [part.startswith(expected) for part in found] == [True] if expected else not found


def test_weights_are_digested_by_content(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    digests = []
    for number, value in enumerate((1.0, 1.0, 1.0 + 2**-23)):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file({"a": torch.full((3,), value)}, folder / "delta.safetensors")
        digests.append(archive.digest_weights(folder))
    assert digests[0] == digests[1] != digests[2]
    assert archive.digest_weights(tmp_path) == ""
