"""A decoder-only model from the command line: train, resume, evaluate, predict, export, score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_causal
import tiny_text
import torch
from safetensors.torch import load_file
from tiny_cli import call

from unipeft_run import cli, load_run
from unipeft_run.commands import export, predict, score
from unipeft_run.errors import UserError
from unipeft_run.run import evaluate
from unipeft_run.training.causal_loss import CausalLoss

TINY = (
    *("recipe.max_steps=6", "recipe.eval_every=2", "recipe.checkpoint_every=1", "tracking=local"),
    *("recipe.batch_size=4", "output=outputs", "scale=mini", "method=lora_attn"),
)
OWN = (
    *("task=causal_lm", "data=pairs.csv", "prompt=ask", "response=reply"),
    *("prompt_template={prompt}:", "evaluation.decoding.max_new_tokens=5", *TINY),
)
CHOICES = ("task=commonsense", "task.path=choices", *TINY)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with pairs, questions and a tiny Llama and GPT-2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    pairs = [f"the cat {n},on the mat {n % 3}\n" for n in range(30)]
    Path("pairs.csv").write_text("ask,reply\n" + "".join(pairs))
    questions = [{**row, "task": "ab"[n % 2]} for n, row in enumerate([*tiny_causal.QUESTIONS] * 2)]
    tiny_causal.write(tmp_path / "choices", questions)
    tokenizer = tiny_text.bart_tokenizer()
    for family in tiny_causal.FAMILIES:
        tokenizer.save_pretrained(tmp_path / family)
        tiny_causal.model(family, len(tokenizer)).save_pretrained(tmp_path / family)
    return tmp_path


def backbone(family: str) -> list[str]:
    return [f"backbone.path={family}", f"backbone.family={family}"]


def the_run(folder: Path) -> tuple[Path, dict[str, Any]]:
    (run,) = (folder / "outputs").glob("*/*/*")
    return run, json.loads((run / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("words", "family"),
    [
        (OWN, "llama"),
        (OWN, "gpt2"),
        pytest.param(CHOICES, "llama", marks=pytest.mark.slow),
        ((*CHOICES, "task.by=likelihood"), "llama"),
    ],
)
def test_a_run_evaluates_to_the_same_numbers_again(
    words: tuple[str, ...], family: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(cli.train, monkeypatch, *words, *backbone(family)) == 0
    run, metrics = the_run(folder)
    found = evaluate(run)
    assert found == {name: pytest.approx(metrics[f"test/{name}"], abs=1e-5) for name in found}
    assert (
        metrics["train/loss"] < metrics["train/first_loss"] if "train/first_loss" in metrics else 1
    )
    names = {file.name for file in (run / "predictions").iterdir()}
    if words[0] == "task=commonsense":
        assert names == {"test.jsonl", "test_a.jsonl", "test_b.jsonl"}
        assert {"test/accuracy_a", "test/accuracy_b", "trivial/accuracy"} <= metrics.keys()
    else:
        assert names == {"test.jsonl"}
        assert metrics["primary"] == "test/exact_match"


def test_a_resumed_run_equals_an_uninterrupted_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*OWN, *backbone("llama"))
    assert call(cli.train, monkeypatch, *words) == 0
    run, metrics = the_run(folder)
    delta = load_file(run / "delta.safetensors")
    compute, calls = CausalLoss.__call__, iter(range(100))

    def stop(self: CausalLoss, model: Any, batch: Any) -> Any:
        if model.training and next(calls) == 4:
            raise KeyboardInterrupt
        return compute(self, model, batch)

    again = (*words[:-2], "output=others", *words[-2:])
    with monkeypatch.context() as patch:
        patch.setattr(CausalLoss, "__call__", stop)
        assert call(cli.train, monkeypatch, *again) == 130
    (other,) = (folder / "others").glob("*/*/*")
    assert not (other / "metrics.json").exists()
    assert call(cli.train, monkeypatch, *again) == 0
    resumed = load_file(other / "delta.safetensors")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in delta.items())
    assert json.loads((other / "metrics.json").read_text())["test/loss"] == metrics["test/loss"]


def test_predictions_exports_and_scores(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(cli.train, monkeypatch, *OWN, *backbone("llama")) == 0
    run, _ = the_run(folder)
    rows = [json.loads(line) for line in (run / "predictions/test.jsonl").read_text().splitlines()]
    data = dict(line.split(",") for line in Path("pairs.csv").read_text().splitlines()[1:])
    asked = [list(data)[int(row["id"]) - 1] for row in rows]
    Path("new.csv").write_text("ask\n" + "".join(f"{text}\n" for text in asked))
    assert predict.main([str(run), "new.csv", "--out", "out.jsonl"]) == 0
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in found] == [row["prediction"] for row in rows]
    assert load_run(run).predict(asked[:2]) == [row["prediction"] for row in rows[:2]]
    capsys.readouterr()
    for kind in ("delta", "merged"):
        assert export.main([str(run), "--out", f"as_{kind}", "--format", kind]) == 0
    assert "transformers.AutoModelForCausalLM" in capsys.readouterr().out
    assert load_run(folder / "as_delta").predict(asked[:2]) == [
        row["prediction"] for row in rows[:2]
    ]
    assert "AutoModelForCausalLM" in Path("as_merged/README.md").read_text()
    Path("p.txt").write_text("".join(row["prediction"] + "\n" for row in rows))
    Path("r.txt").write_text("".join(row["reference"] + "\n" for row in rows))
    files = "predictions=p.txt", "references=r.txt"
    assert score.main(["task=causal_lm", *files, "metric=exact_match", "format=json"]) == 0


def test_the_merged_model_generates_the_same_with_transformers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert call(cli.train, monkeypatch, *OWN, *backbone("llama")) == 0
    run, _ = the_run(folder)
    assert export.main([str(run), "--out", "merged", "--format", "merged"]) == 0
    tokenizer = AutoTokenizer.from_pretrained("merged")
    model = AutoModelForCausalLM.from_pretrained("merged")
    assert tokenizer.padding_side == "left"
    assert model.generation_config.max_new_tokens == 5
    texts = ["the cat 3", "the cat 14"]
    ids = [[0, *tokenizer(f"{text}:", add_special_tokens=False)["input_ids"]] for text in texts]
    own = load_run(run).predict(texts)
    for prompt, text in zip(ids, own, strict=True):
        tokens = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)))
        new = tokens[0, len(prompt) :]
        assert tokenizer.decode(new, skip_special_tokens=True).strip() == text


def test_choices_are_predicted_from_records(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*CHOICES, "task.by=likelihood", *backbone("llama"))
    assert call(cli.train, monkeypatch, *words) == 0
    run, _ = the_run(folder)
    questions = [json.loads(line) for line in Path("choices/test.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (run / "predictions/test.jsonl").read_text().splitlines()]
    found = load_run(run).predict([{**row, "answer": None} for row in questions])
    choices = [question["choices"] for question in questions]
    numbers = [int(row["prediction"].removeprefix("answer")) - 1 for row in rows]
    assert found == [texts[n] for texts, n in zip(choices, numbers, strict=True)]
    assert load_run(run).predict([]) == []
    for settings, sentence in (
        ({"probabilities": True}, "chooses among texts, not classes"),
        ({"num_beams": 2}, "num_beams= has no effect: task commonsense generates no text"),
    ):
        with pytest.raises(UserError, match=sentence):
            load_run(run).predict([], **settings)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((*OWN, "backbone=bart_mini"), "is of type causal, but backbone bart_mini"),
        ((*OWN, "prompt=aks"), "did you mean 'ask'?"),
        ((*OWN, "prompt_template={promt}"), "has no column 'promt'"),
        ((*OWN, "extract=first_mach"), "must be first_match, last_number"),
        ((*OWN, "extract=text_after"), "task.extract=text_after needs task.marker"),
        ((*OWN, "marker=x"), "task.extract is not text_after"),
        ((*CHOICES, "task.format=mixd"), "did you mean mixed?"),
        ((*CHOICES, "task.by=likelihood", "evaluation.decoding.num_beams=2"), "generates none"),
        ((*OWN, "head=trained"), "no classifier to train"),
    ],
)
def test_a_mistake_is_one_message(
    words: tuple[str, ...],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in ("prompt=", "prompt_template="):
        same = [word for word in words if word.startswith(key)]
        words = tuple(word for word in words if word not in same[:-1])
    assert call(cli.train, monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1
