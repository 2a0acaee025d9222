"""`load_run(...).predict` gives what evaluation gives, for every kind of input, in order."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_runs import make_finished, row
from tiny_config import configured

import unipeft_run
from unipeft_run.commands import export, predict
from unipeft_run.data.new_inputs import encode_inputs
from unipeft_run.errors import UserError
from unipeft_run.inference.inputs import collect_inputs
from unipeft_run.inference.loaded_run import LoadedRun
from unipeft_run.inference.stored_run import override_decoding
from unipeft_run.inputs import load_inputs
from unipeft_run.run import evaluate

Finished = Callable[..., Path]
SHORT = {"max_length": 4, "min_length": 0, "num_beams": 1}
TEXTS = {
    "sst2": [row("sst2", n)["sentence"] for n in range(9)],
    "mnli": [(row("mnli", n)["premise"], row("mnli", n)["hypothesis"]) for n in range(9)],
    "xsum": [row("xsum", n)["document"] for n in range(9)],
    "wmt16_en_ro": [row("wmt16_en_ro", n)["translation"]["en"] for n in range(9)],
}


@pytest.fixture(scope="module")
def loaded(finished: Finished) -> Callable[..., LoadedRun]:
    runs: dict[tuple[str, ...], LoadedRun] = {}

    def get(task: str, *overrides: str) -> LoadedRun:
        if (task, *overrides) not in runs:
            folder = finished(task, *overrides)
            runs[(task, *overrides)] = unipeft_run.load_run(folder, device="cpu")
        return runs[(task, *overrides)]

    return get


@pytest.mark.parametrize("task", TEXTS)
def test_predictions_are_those_of_the_evaluation(
    task: str, loaded: Any, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The texts reach the model as the task encodes its test split."""
    from unipeft_run.experiment import PreparedRun

    run = loaded(task)
    inputs = load_inputs(run.config, ("test",))
    prepared = PreparedRun(run.config, inputs, inference=True)
    rows = prepared.evaluator(run.model, "test").rows
    assert run.predict(TEXTS[task], batch_size=4) == [row["prediction"] for row in rows]
    assert len({row["prediction"] for row in rows}) > 1
    source = run.task.encode(inputs.splits, run.tokenizer)["test"]["input_ids"][:]
    assert encode_inputs(run.task, collect_inputs(run.task, TEXTS[task]), run.tokenizer) == source


def test_classes_come_with_probabilities(loaded: Any) -> None:
    run = loaded("mnli")
    found = run.predict(TEXTS["mnli"], probabilities=True)
    assert [prediction.label for prediction in found] == run.predict(TEXTS["mnli"])
    assert run.label_names == ("entailment", "neutral", "contradiction")
    for prediction in found:
        assert tuple(prediction.probabilities) == run.label_names
        assert sum(prediction.probabilities.values()) == pytest.approx(1)
        assert prediction.probability == max(prediction.probabilities.values())


@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_batch_size_changes_nothing(size: int, loaded: Any) -> None:
    run = loaded("xsum")
    assert run.predict(TEXTS["xsum"], batch_size=size) == run.predict(TEXTS["xsum"])
    assert run.predict([]) == []


def test_inputs_may_be_tuples_lists_or_mappings(loaded: Any) -> None:
    pairs = TEXTS["mnli"]
    named = [{"hypothesis": second, "premise": first, "more": 3} for first, second in pairs]
    expected = loaded("mnli").predict(pairs)
    assert loaded("mnli").predict(named) == loaded("mnli").predict(list(map(list, pairs)))
    assert loaded("mnli").predict(named) == expected
    translated = [{"en": text} for text in TEXTS["wmt16_en_ro"]]
    nested = [{"translation.en": text} for text in TEXTS["wmt16_en_ro"]]
    assert loaded("wmt16_en_ro").predict(translated) == loaded("wmt16_en_ro").predict(nested)


@pytest.mark.parametrize(
    ("task", "inputs", "sentence"),
    [
        ("sst2", "a text", r"takes a list of inputs, not a single text"),
        ("sst2", [("a", "b")], r'input 1 is \["a", "b"\]: task sst2 reads a text'),
        ("sst2", ["a", 3], r"input 2: sentence is 3, not text"),
        ("sst2", ["a", None], r"input 2: sentence is null, not text"),
        ("sst2", [{"sentense": "a"}], r"no column 'sentence' \(did you mean 'sentense'\?\)"),
        ("mnli", ["a"], r'input 1 is "a": task mnli reads a pair \(premise, hypothesis\)'),
        ("mnli", [{"premise": "a"}], r"input 1 has no column 'hypothesis'"),
    ],
)
def test_a_wrong_input_is_named(task: str, inputs: Any, sentence: str, loaded: Any) -> None:
    with pytest.raises(UserError, match=sentence):
        loaded(task).predict(inputs)


def test_decoding_settings_can_be_overridden(loaded: Any) -> None:
    run = loaded("xsum")
    long, short = run.predict(TEXTS["xsum"]), run.predict(TEXTS["xsum"], **SHORT)
    assert short != long and max(map(len, short)) < max(map(len, long))


@pytest.mark.parametrize(
    ("task", "settings", "sentence"),
    [
        ("xsum", {"num_beam": 2}, "there is no key num_beam; did you mean num_beams?"),
        ("xsum", {"num_beams": 0}, "num_beams=0: must be at least 1"),
        (
            "xsum",
            {"max_length": 9, "min_length": 12},
            "min_length=12: must be at most max_length=9",
        ),
        (
            "xsum",
            {"length_penalty": 3, "num_beams": 1},
            "length_penalty=3 has no effect: num_beams=1",
        ),
        (
            "xsum",
            {"max_length": 9, "max_new_tokens": 4},
            "max_length=9 has no effect: max_new_tokens=4 takes precedence",
        ),
        ("xsum", {"max_length": 500}, "max_length: 500 tokens, but this backbone has 80"),
        ("xsum", {"batch_size": 0}, "batch_size=0: must be a whole number, at least 1"),
        ("xsum", {"probabilities": True}, "task xsum generates text, not classes"),
        ("sst2", {"num_beams": 2}, "num_beams= has no effect: task sst2 generates no text"),
    ],
)
def test_a_wrong_setting_is_named(task: str, settings: Any, sentence: str, loaded: Any) -> None:
    with pytest.raises(UserError) as error:
        loaded(task).predict(TEXTS[task], **settings)
    assert sentence in str(error.value)


def test_a_task_that_predicts_numbers_generates_no_text() -> None:
    with pytest.raises(UserError, match="has no effect: task stsb generates no text"):
        override_decoding(configured("task=stsb", "method=mam"), {"num_beams": 2})


@pytest.mark.parametrize(
    ("words", "changes", "sentence"),
    [
        (("task=gsm8k",), {"max_length": 60}, "has no effect: max_new_tokens=256 takes precedence"),
        (("task=gsm8k",), {"forced_bos": True}, "llama continues the prompt, so no first token"),
        (("task=xsum", "backbone=t5_base"), {"forced_bos": True}, "t5 has no token <s>"),
        (("task=xsum",), {"max_length": 4}, "min_length=10: must be at most max_length=4"),
    ],
)
def test_overrides_follow_the_rules_of_training(
    words: tuple[str, ...], changes: Any, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        override_decoding(configured(*words, "method=mam"), changes)


def test_a_loaded_run_replaces_the_bare_model(loaded: Any) -> None:
    """Until version 0.1 `load_run` returned the model."""
    run = loaded("sst2")
    ids = torch.tensor([[0, 5, 6, 2]])
    assert torch.equal(run(input_ids=ids).logits, run.model(input_ids=ids).logits)
    assert list(run.state_dict()) == list(run.model.state_dict())
    assert copy.deepcopy(run).predict(["the cat"]) == run.predict(["the cat"])
    assert not hasattr(run, "nonsense") and not run.model.training


def test_predicting_leaves_the_training_mode(loaded: Any) -> None:
    run = loaded("sst2")
    run.model.train()
    expected = run.predict(TEXTS["sst2"], probabilities=True)
    assert run.model.training
    run.model.eval()
    assert run.predict(TEXTS["sst2"], probabilities=True) == expected


def test_a_run_is_found_by_the_beginning_of_its_id(
    finished: Finished, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished("sst2")
    monkeypatch.chdir(home)
    assert unipeft_run.load_run(folder.name[:6]).folder == Path("outputs", *folder.parts[-3:])


def test_evaluation_on_a_file_gives_the_metrics_of_its_rows(
    finished: Finished, home: Path, tmp_path: Path
) -> None:
    """The file has other rows in another order than any split, and labels as words."""
    names = ("entailment", "neutral", "contradiction")
    rows = [row("mnli", n) for n in (4, 2, 0)]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps({**r, "label": names[r["label"]]}) for r in rows))
    metrics = evaluate(finished("mnli"), data=file)
    assert set(metrics) == {"loss", "accuracy"}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert evaluate(finished("mnli"), task_path=str(tmp_path / "data"))["loss"] == pytest.approx(
        metrics["loss"]
    )


def test_a_run_whose_backbone_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its predictions would not be those that its metrics describe."""
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    folder = make_finished(tmp_path, "sst2", "method=lora_attn")
    shutil.copytree(tmp_path / "roberta", tmp_path / "original")
    weights = tmp_path / "roberta" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    sentence = f"the backbone changed after the run in {folder} was trained; give the original with"
    with pytest.raises(UserError, match=sentence):
        unipeft_run.load_run(folder)
    with pytest.raises(UserError, match=sentence):
        evaluate(folder)
    for command, words in ((predict, ["-"]), (export, ["--out", str(tmp_path / "out")])):
        assert command.main([str(folder), *words]) == 2
        assert sentence in capsys.readouterr().err
    original = tmp_path / "original"
    assert unipeft_run.load_run(folder, backbone_path=original).predict(["the cat"])
