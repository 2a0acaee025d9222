"""Each task's recipe from data to predictions, on a randomly initialised backbone."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tiny_cli import call
from tiny_recipe import BACKBONES, EXAMPLES, LONGEST, UPDATES, make_overrides, write

from unipeft_run import cli
from unipeft_run.data.tasks.sst2 import SST2
from unipeft_run.errors import UserError
from unipeft_run.evaluation.evaluator import Evaluator
from unipeft_run.experiment import PreparedRun
from unipeft_run.run import evaluate
from unipeft_run.task_types.registry import TASK_TYPES


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write(folder)
    return folder


@pytest.mark.parametrize("task", BACKBONES)
def test_a_recipe_from_data_to_predictions(
    task: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    given = make_overrides(task, inputs, "method=mam", f"output={tmp_path / 'outputs'}")
    assert call(cli.train, monkeypatch, *given) == 0
    (run,) = (tmp_path / "outputs" / task / "mam").iterdir()
    records = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "train/loss" in r] == list(range(1, UPDATES + 1))
    validated = {r["step"]: r for r in records if "validation/loss" in r}
    assert list(validated) == [2, 4]
    metrics = json.loads((run / "metrics.json").read_text())
    best = validated[metrics_of_best(run)]
    assert metrics["validation/loss"] == best["validation/loss"]
    assert {metrics["primary"], "test/loss", "trivial/name"} <= metrics.keys()
    predictions = (run / "predictions" / "test.jsonl").read_text().splitlines()
    assert len(predictions) == EXAMPLES
    assert (run / "delta.safetensors").is_file()
    assert json.loads((run / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize(
    ("task", "word", "expected"),
    [
        (
            "xsum",
            f"evaluation.decoding.max_length={LONGEST + 1}",
            rf"evaluation.decoding.max_length: {LONGEST + 1} tokens, .* {LONGEST} positions",
        ),
        (
            "sst2",
            "++backbone.config.max_position_embeddings=20",
            r"task.max_source_length: \d+ tokens, but this backbone has 18 positions",
        ),
        (
            "sst2",
            "+backbone.config.hidden_droput_prob=0.3",
            r"there is no key backbone.config.hidden_droput_prob; "
            r"did you mean backbone.config.hidden_dropout_prob\?",
        ),
    ],
)
def test_settings_that_do_not_fit_the_backbone_are_one_sentence(
    task: str,
    word: str,
    expected: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    given = make_overrides(task, inputs, "method=mam", f"output={tmp_path}", word)
    assert call(cli.train, monkeypatch, *given) == 2
    assert re.fullmatch(expected, capsys.readouterr().err.splitlines()[-1])


@pytest.mark.parametrize(("split", "key"), [("train", "max"), ("test", "eval")])
def test_a_long_target_names_the_key_that_truncates_it(split: str, key: str) -> None:
    rows = Dataset.from_dict({"input_ids": [[1, 2]], "labels": [[1, 2, 3, 4]]})
    experiment: Any = SimpleNamespace(
        encoded={split: rows},
        type=TASK_TYPES["seq2seq"],
        config=SimpleNamespace(evaluation=SimpleNamespace(decoding=None)),
    )
    found = [("task.max_source_length", 2), (f"task.{key}_target_length", 4)]
    assert list(PreparedRun._lengths(experiment)) == found


def test_a_baseline_that_cannot_be_scored_does_not_lose_the_run(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any) -> Any:
        raise UserError("example 1 is too long for ROUGE-L")

    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(SST2, "baseline", refuse)
    given = make_overrides("sst2", inputs, "method=mam", f"output={tmp_path / 'outputs'}")
    assert call(cli.train, monkeypatch, *given) == 0
    (run,) = (tmp_path / "outputs" / "sst2" / "mam").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert not [name for name in metrics if name.startswith("trivial/")]
    assert (run / "delta.safetensors").is_file()
    assert "trivial baseline" not in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there, fp16 is evaluated in fp16")
def test_an_fp16_run_is_evaluated_in_fp32_on_a_cpu(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    given = make_overrides("sst2", inputs, "method=mam", f"output={tmp_path / 'outputs'}")
    assert call(cli.train, monkeypatch, *given) == 0
    (run,) = (tmp_path / "outputs" / "sst2" / "mam").iterdir()
    config = run / "config.yaml"
    config.write_text(re.sub(r"(?m)^precision: .*", "precision: fp16", config.read_text()))
    stored = json.loads((run / "metrics.json").read_text())
    metrics = evaluate(run)
    assert metrics["loss"] == pytest.approx(stored["test/loss"])


def test_label_smoothing_trains_another_classifier(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    given = make_overrides("sst2", inputs, "method=mam", f"output={tmp_path / 'outputs'}")
    for smoothing in ("0.0", "0.5"):
        assert call(cli.train, monkeypatch, *given, f"recipe.label_smoothing={smoothing}") == 0
    runs = sorted((tmp_path / "outputs" / "sst2" / "mam").iterdir())
    deltas = [load_file(run / "delta.safetensors") for run in runs]
    assert any(not torch.equal(deltas[0][name], deltas[1][name]) for name in deltas[0])


@pytest.mark.parametrize("steps", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
def test_a_run_with_a_far_too_large_learning_rate_is_never_done(
    steps: int, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    given = make_overrides("sst2", inputs, "method=mam", f"output={tmp_path / 'outputs'}")
    bad = ("optim.lr=1e30", f"recipe.max_steps={steps}", "recipe.warmup_ratio=0.0")
    for _ in range(2):
        assert call(cli.train, monkeypatch, *given, *bad, "recipe.eval_every=1") == 1
        (run,) = (tmp_path / "outputs" / "sst2" / "mam").iterdir()
        status = json.loads((run / "status.json").read_text())
        assert status["state"] == "diverged"
        assert "no checkpoint had been saved" in status["error"]
        assert not (run / "metrics.json").exists() and not (run / "checkpoints").exists()


def test_a_test_loss_that_is_not_finite_is_divergence(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    evaluate_really = Evaluator.__call__

    def spoiled(self: Evaluator, model: Any, split: str, *given: Any, **named: Any) -> Any:
        result = evaluate_really(self, model, split, *given, **named)
        if split == "test":
            result.metrics["loss"] = math.nan
        return result

    monkeypatch.setattr(Evaluator, "__call__", spoiled)
    given = make_overrides("sst2", inputs, "method=bitfit", f"output={tmp_path / 'outputs'}")
    assert call(cli.train, monkeypatch, *given) == 1
    (run,) = (tmp_path / "outputs" / "sst2" / "bitfit").iterdir()
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["error"]) == ("diverged", "the test loss is nan at step 4")
    assert not (run / "metrics.json").exists()


def metrics_of_best(run: Path) -> int:
    records = map(json.loads, (run / "train.jsonl").read_text().splitlines())
    return [r["best_step"] for r in records if "best_step" in r][-1]
