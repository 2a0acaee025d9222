"""Each task's recipe from its data to its predictions, on a random backbone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny_cli import call
from tiny_recipe import BACKBONES, EXAMPLES, LONGEST, UPDATES, words, write

from unipeft_run import cli


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write(folder)
    return folder


@pytest.mark.parametrize("task", BACKBONES)
def test_the_whole_recipe(
    task: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    given = words(task, inputs, "method=mam", f"output={tmp_path / 'outputs'}")
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
def test_what_does_not_fit_the_backbone_is_a_sentence(
    task: str,
    word: str,
    expected: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    given = words(task, inputs, "method=mam", f"output={tmp_path}", word)
    assert call(cli.train, monkeypatch, *given) == 2
    assert re.fullmatch(expected, capsys.readouterr().err.splitlines()[-1])


def metrics_of_best(run: Path) -> int:
    records = map(json.loads, (run / "train.jsonl").read_text().splitlines())
    return [r["best_step"] for r in records if "best_step" in r][-1]
