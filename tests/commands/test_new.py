"""`unipeft new`: skeletons that pass their own tests, and train with the printed command."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import tiny_causal
import tiny_text
from tiny_files import write_roberta, write_sentiment
from tiny_shell import environment, unipeft

from unipeft_run.commands.new import NEXT, NOT_NAMES, TASK_TYPES, main
from unipeft_run.commands.params import main as count
from unipeft_run.config import compose
from unipeft_run.extensions import extended_by, options

Capture = pytest.CaptureFixture[str]
NAMES = {kind: f"my_{kind}" for kind in NEXT}
OWN_FAMILIES = (  # of which conf/backbone has a model on the hub
    *("bart", "mbart", "t5", "t5_gated", "roberta", "bert"),
    *("llama", "gpt2", "vit", "clip"),
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_all(capsys: Capture) -> dict[str, list[str]]:
    """Write a skeleton of each kind into ./lab; return the printed commands."""
    commands = {}
    for kind, name in NAMES.items():
        assert main([kind, name, "--dir", "lab"]) == 0
        _, _, printed = capsys.readouterr().out.partition("next:\n")
        commands[kind] = [line.strip() for line in printed.splitlines()]
    return commands


@pytest.mark.slow
def test_every_skeleton_passes_its_own_test(tmp_path: Path, capsys: Capture) -> None:
    commands = write_all(capsys)
    prefix = "python -m pytest "
    assert all(test.startswith(prefix) for test, _ in commands.values())
    files = [shlex.split(test.removeprefix(prefix))[0] for test, _ in commands.values()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        capture_output=True, text=True, env=environment(tmp_path), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout


@pytest.mark.parametrize("kind", TASK_TYPES)
def test_a_task_of_every_type_passes_its_own_test(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"my_{kind}"  # the folder is imported by its name, so each case needs its own
    assert main(["task", name, "--type", kind, "--dir", f"lab_{kind}"]) == 0
    monkeypatch.syspath_prepend(tmp_path)
    test = import_module(f"lab_{kind}.tests.test_task_{name}")
    test.test_it_reads_and_scores_its_data()


@pytest.mark.parametrize("scale", options("scale"))
def test_the_classifier_of_a_new_task_trains(scale: str) -> None:
    assert main(["task", "mine"]) == 0
    with extended_by(["extension"]):
        words = ["task=mine", "method=mam", f"scale={scale}"]
        assert compose(words).head == "trained"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "build"),
    [("seq2seq", tiny_text.bart), ("causal", partial(tiny_causal.model, "llama"))],
)
def test_a_task_that_generates_trains_with_the_printed_command(
    kind: str, build: Callable[[int], Any], tmp_path: Path, capsys: Capture
) -> None:
    assert main(["task", "mine", "--type", kind, "--dir", "lab"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    tokenizer = tiny_text.bart_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    build(len(tokenizer)).save_pretrained(tmp_path / "model")
    done = unipeft(tmp_path, *shlex.split(line)[1:], "backbone.path=model")
    assert done.returncode == 0, done.stderr
    assert "trivial baseline" in done.stdout


@pytest.mark.slow
def test_a_broken_skeleton_fails_its_test(tmp_path: Path) -> None:
    assert main(["form", "gate"]) == 0
    file = tmp_path / "extension" / "form" / "gate.py"
    file.write_text(file.read_text().replace("nn.init.zeros_(self.up.weight)", "pass"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "extension/tests/test_form_gate.py"],
        capture_output=True, text=True, env=environment(tmp_path), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1


@pytest.mark.slow
def test_the_printed_commands_train(tmp_path: Path, capsys: Capture) -> None:
    """As printed, except for the data and the model, which come from local folders."""
    write_sentiment(tmp_path / "data")
    write_roberta(tmp_path / "model")
    for kind, (_, line) in write_all(capsys).items():
        program, *words = shlex.split(line)
        assert program == "unipeft"
        words += ["backbone.path=model"]
        words += ["task.path=data"] if kind != "task" else []
        done = unipeft(tmp_path, *words)
        assert done.returncode == 0, (line, done.stderr)
    (run,) = (tmp_path / "outputs" / "my_task" / "lora_attn").iterdir()
    score = json.loads((run / "metrics.json").read_text())["test/accuracy"]
    assert 0 <= score <= 100
    refused = unipeft(tmp_path, "eval", run.name)
    assert refused.returncode == 2 and "--allow lab.task.my_task.MyTask" in refused.stderr
    for trust in (["--config-dir", "lab"], ["--allow", "lab."]):
        done = unipeft(tmp_path, "eval", run.name, *trust)
        assert f"test/accuracy {score}" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fromm", "x"], "fromm is unknown (did you mean form?)"),
        (["form"], "the following arguments are required: NAME;"),
        (["form", "Gate"], "lower-case letters"),
        (["form", "class"], "lower-case letters"),
        (["form", "../gate"], "lower-case letters"),
        (["form", "bottleneck"], "a form named bottleneck already exists"),
        (["form", "gate", "--dir", "my-lab"], "it must be a Python name"),
        (["form", "gate", "--dir", "torch"], "a Python module named torch already exists"),
        (["form", "gate", "--dir", "json"], "a Python module named json already exists"),
        (
            ["task", "mine", "--type", "sequence"],
            "type=sequence is unknown; choose from classification, seq2seq",
        ),
        (["form", "mine", "--type", "causal"], "only a task has a type"),
        (["backbone", "mine", "--hub", "a/b"], "give its family too"),
        (["backbone", "mine", "--path", "nowhere"], "there is no config.json"),
        (["backbone", "mine", "--path", "x", "--hub", "y"], "not both"),
        (["backbone", "mine", "--path", "x", "--family", "bart"], "leave it out"),
        (["form", "mine", "--path", "x"], "--path=x: only a backbone has a path"),
        (["task", "mine", "--hub", "a/b"], "only a backbone has a hub"),
        (["method", "mine", "--family", "bart"], "only a backbone has a family"),
        (["form", "none"], "form none: None is a word of Python"),
        (["form", "form"], "its class would hide the Form that it needs"),
        (["task", "counter", "--type", "causal"], "would hide the Counter that it needs"),
        *((["form", name], f"Hydra reads {name} as a value") for name in NOT_NAMES),
    ],
)
def test_names_are_checked_and_nothing_is_written(
    words: list[str], message: str, tmp_path: Path, capsys: Capture
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert message in err and (out, len(err.splitlines())) == ("", 1)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path, capsys: Capture) -> None:
    assert main(["method", "mine"]) == 0
    assert main(["method", "mine"]) == 2
    assert "extension already has a method named mine" in capsys.readouterr().err
    test = tmp_path / "extension" / "tests" / "test_form_gate.py"
    test.write_text("mine\n")
    assert main(["form", "gate"]) == 2
    assert "test_form_gate.py already exists; nothing was written" in capsys.readouterr().err
    assert test.read_text() == "mine\n" and not (tmp_path / "extension" / "form").exists()


@pytest.mark.parametrize(
    ("config", "family", "task"),
    [
        ({"model_type": "mbart"}, "mbart", "wmt16_en_ro"),
        ({"model_type": "qwen3"}, "qwen3", "commonsense"),
        ({"model_type": "t5", "feed_forward_proj": "gated-gelu"}, "t5_gated", "xsum"),
        ({"model_type": "vit"}, "vit", "cifar100"),
    ],
)
def test_a_local_backbone_names_its_family(
    config: dict[str, object], family: str, task: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert main(["backbone", "mine", "--path", "model"]) == 0
    out = capsys.readouterr().out
    assert f"unipeft params task={task} " in out and "placeholder" not in out
    text = (tmp_path / "extension" / "backbone" / "mine.yaml").read_text()
    assert f"family: {family}\n" in text and f'path: "{tmp_path}/model"' in text
    (tmp_path / "model" / "config.json").write_text('{"model_type": "mamba"}')
    assert main(["backbone", "other", "--path", "model"]) == 2
    assert "its model_type is mamba; supported are bart, " in capsys.readouterr().err


@pytest.mark.parametrize("family", OWN_FAMILIES)
def test_a_backbone_of_every_family_passes_its_own_test(
    family: str, tmp_path: Path, capsys: Capture
) -> None:
    """With our own backbone of the family, whose shapes are known without a network."""
    assert main(["backbone", "mine", "--family", family]) == 0
    *_, place, _, _, command = capsys.readouterr().out.splitlines()
    assert place.startswith("extension/backbone/mine.yaml names a placeholder, ")
    assert count(shlex.split(command)[2:]) == 0
    assert "stored" in capsys.readouterr().out


def test_a_family_without_a_backbone_of_ours_needs_a_place(capsys: Capture) -> None:
    assert main(["backbone", "mine", "--family", "mistral"]) == 2
    assert "--family=mistral: give its id on the model hub too" in capsys.readouterr().err
