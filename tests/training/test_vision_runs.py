"""Runs on images from data to predictions: they train, resume and are evaluated again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file
from tiny_cli import call
from tiny_vision import class_rows, pair_rows, write, write_clip, write_vit
from transformers import AutoImageProcessor, AutoModelForImageClassification

from unipeft_run import cli, load_run
from unipeft_run.commands import export, predict
from unipeft_run.errors import UserError
from unipeft_run.run import evaluate
from unipeft_run.training.accumulation import GradientAccumulator

UPDATES = 6
SHORT = (
    *(f"recipe.max_steps={UPDATES}", "recipe.eval_every=3", "recipe.checkpoint_every=1"),
    *("recipe.batch_size=4", "recipe.log_every=1", "tracking.wandb.mode=disabled"),
    *("scale=mini", "method=parallel_ffn", "ffn.bottleneck=4", "ffn.form.dropout=0.1"),
    *("task.image_size=16", "task.resize=16"),
)
MORE = {"cifar100": (), "didemo": ("task.max_source_length=24",)}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write(folder / "cifar100", class_rows)
    write(folder / "didemo", pair_rows)
    write_vit(folder / "vit")
    write_clip(folder / "clip")
    return folder


def words(task: str, inputs: Path, output: Path) -> list[str]:
    backbone = inputs / {"cifar100": "vit", "didemo": "clip"}[task]
    paths = f"task.path={inputs / task}", f"backbone.path={backbone}", f"output={output}"
    return [f"task={task}", *paths, *SHORT, *MORE[task]]


def train(task: str, inputs: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert call(cli.train, monkeypatch, *words(task, inputs, output)) == 0
    (run,) = (output / task / "parallel_ffn").iterdir()
    return run


def records(run: Path) -> list[dict[str, Any]]:
    """Return the records of a training without times."""
    lines = map(json.loads, (run / "train.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


@pytest.mark.parametrize("task", [pytest.param("cifar100", marks=pytest.mark.slow), "didemo"])
def test_a_run_resumes_bit_for_bit_and_is_evaluated_again(
    task: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    whole = train(task, inputs, tmp_path / "whole", monkeypatch)
    interrupt_after(4, monkeypatch)
    stopped = tmp_path / "stopped"
    assert call(cli.train, monkeypatch, *words(task, inputs, stopped)) == 130
    monkeypatch.undo()
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    resumed = train(task, inputs, stopped, monkeypatch)
    first, second = (load_file(run / "delta.safetensors") for run in (whole, resumed))
    assert all((first[name] == second[name]).all() for name in first)
    assert records(resumed) == records(whole)
    metrics = json.loads((whole / "metrics.json").read_text())
    again = {f"test/{name}": value for name, value in evaluate(whole).items()}
    assert again == {name: metrics[name] for name in again}
    assert ("train/tokens_per_second" in metrics) == (task == "didemo")
    predictions = (whole / "predictions" / "test.jsonl").read_text().splitlines()
    assert len(predictions) == 12
    assert {"id", "prediction", "reference", "score"} == json.loads(predictions[0]).keys()


def interrupt_after(updates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise KeyboardInterrupt instead of computing update number `updates` + 1."""
    accumulate, done = GradientAccumulator.accumulate, [0]

    def counted(self: Any, batches: Any) -> Any:
        done[0] += 1
        if done[0] > updates:
            raise KeyboardInterrupt
        return accumulate(self, batches)

    monkeypatch.setattr(GradientAccumulator, "accumulate", counted)


def test_predictions_for_image_files(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    run = train("cifar100", inputs, tmp_path / "outputs", monkeypatch)
    rows = class_rows(12, 24)
    for row in rows:
        (tmp_path / f"{row['id']}.png").write_bytes(row["image"])
    paths = [str(tmp_path / f"{row['id']}.png") for row in rows]
    lines = (run / "predictions" / "test.jsonl").read_text().splitlines()
    expected = [json.loads(line)["prediction"] for line in lines]
    loaded = load_run(run)
    assert loaded.predict(paths) == expected
    names = [f"{row['id']}.png" for row in rows]
    (tmp_path / "inputs.csv").write_text("image\n" + "\n".join(names) + "\n")
    capsys.readouterr()
    assert predict.main([str(run), str(tmp_path / "inputs.csv")]) == 0
    table = capsys.readouterr().out.splitlines()
    rows_written = [f"{name},{label}" for name, label in zip(names, expected, strict=True)]
    assert [",".join(line.split(",")[:2]) for line in table[1:]] == rows_written
    with pytest.raises(UserError, match="cannot be read"):
        loaded.predict([str(tmp_path / "missing.png")])


@pytest.mark.slow
def test_an_exported_run_is_a_transformers_model(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    given = [w for w in words("cifar100", inputs, tmp_path / "outputs") if "ffn" not in w]
    assert call(cli.train, monkeypatch, *given, "method=lora_attn") == 0
    (run,) = (tmp_path / "outputs" / "cifar100" / "lora_attn").iterdir()
    assert export.main([str(run), "--out", str(tmp_path / "export")]) == 0
    (tmp_path / "p.png").write_bytes(class_rows(1, 0)[0]["image"])
    processor = AutoImageProcessor.from_pretrained(tmp_path / "export")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "export").eval()
    with Image.open(tmp_path / "p.png") as image:
        logits = model(**processor(image, return_tensors="pt")).logits[0]
    (ours,) = load_run(run).predict([str(tmp_path / "p.png")], probabilities=True)
    assert list(ours.probabilities) == list(model.config.id2label.values())
    assert logits.softmax(-1).tolist() == pytest.approx(list(ours.probabilities.values()), abs=1e-5)


def test_retrieval_predicts_nothing_for_new_inputs(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    run = train("didemo", inputs, tmp_path / "outputs", monkeypatch)
    with pytest.raises(UserError, match="task didemo predicts nothing for new inputs"):
        load_run(run).predict(["red and blue"])


@pytest.mark.parametrize(
    ("task", "word", "message"),
    [
        ("cifar100", "task.resize=8", "task.resize=8: must be at least task.image_size=16"),
        ("cifar100", "task.image_std=[0,1,1]", "task.image_std: must be greater than 0"),
        ("cifar100", "task.crop_scale=[0.9,0.5]", "task.crop_scale: must be two shares"),
        ("cifar100", "task.image_size=12", "this backbone takes images of 16 pixels"),
        ("cifar100", "backbone.family=clip", "is of type image_classification, but backbone"),
        ("didemo", "head=trained", "head=trained: a backbone that compares texts with images"),
        ("didemo", "recipe.batch_size=1", "contrastive batches need two pairs"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    task: str,
    word: str,
    message: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    assert call(cli.train, monkeypatch, *words(task, inputs, tmp_path), word) == 2
    assert message in capsys.readouterr().err
