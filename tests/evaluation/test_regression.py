"""Regression: loss, evaluation and predictions of a classifier with one output."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_text
import torch
from tiny_config import configured
from tiny_evaluators import SOURCES, assemble
from tiny_evaluators import write as write_rows

from unipeft_run import load_run
from unipeft_run.commands.predict import main as predict
from unipeft_run.commands.score import main as score
from unipeft_run.config import compose, plan, run_id
from unipeft_run.config.inert import refuse_inert
from unipeft_run.config.messages import Illegal
from unipeft_run.data.tasks.glue import GLUERegression
from unipeft_run.errors import UserError
from unipeft_run.evaluation.evaluator import Evaluator
from unipeft_run.run import run
from unipeft_run.task_types.registry import task_type_of
from unipeft_run.training.losses import RegressionLoss

LABELS = [i / 2 for i in range(9)]


@pytest.fixture
def regressor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Evaluator, Any]:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    rows = [{"text": s, "label": v} for s, v in zip(SOURCES, LABELS, strict=True)]
    task = GLUERegression(
        name="stsb",
        path=write_rows(tmp_path, rows),
        text=("text",),
        metric=("pearson", "spearman"),
        max_source_length=32,
    )
    tokenizer = tiny_text.bart_tokenizer()
    evaluator, _ = assemble(task, tokenizer, None, RegressionLoss())
    return evaluator, tiny_text.roberta(len(tokenizer), 1)


def test_an_evaluation_equals_examples_one_by_one(regressor: tuple[Evaluator, Any]) -> None:
    evaluator, model = regressor
    result = evaluator(model, "test")
    encode = evaluator.step.tokenizer
    outputs = [model(**encode(s, return_tensors="pt")).logits.item() for s in SOURCES]
    errors = [(o - v) ** 2 for o, v in zip(outputs, LABELS, strict=True)]
    assert result.metrics["loss"] == pytest.approx(sum(errors) / 9, rel=1e-5)
    assert [row["score"] for row in result.rows] == pytest.approx(errors, rel=1e-4)
    assert [float(row["prediction"]) for row in result.rows] == pytest.approx(outputs, rel=1e-4)
    assert [row["reference"] for row in result.rows][:3] == ["0", "0.5", "1"]
    assert set(result.metrics) == {"loss", "pearson", "spearman"}


def test_the_loss_is_transformers_loss_of_a_regression(regressor: tuple[Evaluator, Any]) -> None:
    evaluator, model = regressor
    batch = evaluator.step.collator([evaluator.encoded["test"][i] for i in range(9)])
    assert batch["labels"].dtype == torch.float32
    loss, count = RegressionLoss()(model, batch)
    model.config.problem_type = "regression"
    assert loss.item() == pytest.approx(model(**batch).loss.item(), rel=1e-6)
    assert count == 9


def test_a_number_of_padding_cannot_be_marked_so_shapes_are_not_padded() -> None:
    task: Any = GLUERegression(
        name="x", text=("a",), metric=("pearson",), max_source_length=8, selection="loss"
    )
    assert task_type_of(task).build_grid(None, None, 8) is None


def test_label_smoothing_has_no_effect() -> None:
    words = ("task=stsb", "method=mam")
    smoothed = configured(*words, "recipe.label_smoothing=0.1")
    assert run_id(smoothed) == run_id(configured(*words))
    with pytest.raises(Illegal, match="predicts a number, not a class"):
        refuse_inert(smoothed, ["recipe.label_smoothing=0.1"])


def train(folder: Path) -> Path:
    """Train two steps on nine pairs of texts; return the run folder."""
    tokenizer = tiny_text.bart_tokenizer()
    tokenizer.save_pretrained(folder / "roberta")
    tiny_text.roberta(len(tokenizer), 1).save_pretrained(folder / "roberta")
    pairs = zip(SOURCES, SOURCES[1:] + SOURCES[:1], LABELS, strict=True)
    write_rows(folder, [{"sentence1": a, "sentence2": b, "label": v} for a, b, v in pairs])
    words = f"task.path={folder} backbone.path={folder / 'roberta'} output={folder / 'outputs'}"
    steps = "recipe.max_steps=2 recipe.batch_size=4 task.max_source_length=40 tracking=local"
    planned = plan(compose(f"task=stsb method=lora_attn {words} {steps}".split()))
    assert run(planned)["state"] == "done"
    return planned.folder


def test_a_run_is_trained_stored_and_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    folder = train(tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["primary"] == "test/pearson"
    assert metrics["trivial/name"] == "share of words in common"
    loaded = load_run(folder)
    assert loaded.model.config.problem_type == "regression"
    found = loaded.predict([("the cat sat", "a dog sat")])
    assert isinstance(found[0], float)
    with pytest.raises(UserError, match="predicts numbers, not classes"):
        loaded.predict([("a", "b")], probabilities=True)
    data = tmp_path / "pairs.csv"
    data.write_text("sentence1,sentence2\nthe cat sat,a dog sat\n")
    capsys.readouterr()
    assert predict([str(folder), str(data)]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert float(row["prediction"]) == pytest.approx(found[0], abs=1e-6)
    assert list(row) == ["sentence1", "sentence2", "prediction"]


def test_numbers_in_text_files_are_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for name, lines in (("predictions", "1\n2.5\n3\n"), ("references", "0\n1\n5e0\n")):
        (tmp_path / name).write_text(lines)
        files.append(f"{name}={tmp_path / name}")
    assert score(["task=stsb", *files, "format=json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["spearman"] == pytest.approx(100.0)
    (tmp_path / "references").write_text("0\nmany\n5\n")
    assert score(["task=stsb", *files]) == 2
    assert 'references, line 2: "many", not a number' in capsys.readouterr().err
