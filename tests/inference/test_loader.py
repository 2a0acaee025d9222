"""load.py and the example inputs of exports, for tasks with any number and kind of columns."""

from __future__ import annotations

import json
import runpy
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from tiny_causal import pairs_task
from tiny_config import configured

import unipeft_run
from unipeft_run.data.tasks.build import build_task
from unipeft_run.errors import UserError
from unipeft_run.inference.inputs import collect_inputs
from unipeft_run.inference.loader import example_input, list_arguments, write_loader

THREE = "{instruction} {context} {my question}"
ARGUMENTS = {  # of load.py
    "sst2": "TEXT",
    "mnli": "PREMISE HYPOTHESIS",
    "cifar100": "FILE",
    "three": "INSTRUCTION CONTEXT MY_QUESTION",
    "commonsense": "JSON",
    "arc_challenge": "JSON",
    "didemo": "",
}


@cache
def task_of(name: str) -> Any:
    if name == "three":
        return pairs_task(Path(mkdtemp()), prompt_template=THREE)
    return build_task(configured(f"task={name}", "method=lora_attn").task)


class FakeRun:
    """Predicts its inputs."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def predict(self, inputs: list[Any]) -> list[str]:
        columns = collect_inputs(self.task, inputs)
        return [" | ".join(map(str, row)) for row in zip(*columns.values(), strict=True)]


def run_script(task: Any, folder: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "load.py").write_text(write_loader(task, ", allow=['my_forms.']"))

    def load_run(path: Path, allow: list[str]) -> FakeRun:
        assert path == folder and allow == ["my_forms."]
        return FakeRun(task)

    monkeypatch.setattr(unipeft_run, "load_run", load_run, raising=False)
    monkeypatch.setattr(sys, "argv", ["load.py", *words])
    runpy.run_path(str(folder / "load.py"), run_name="__main__")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_arguments_are_named(name: str) -> None:
    assert list_arguments(task_of(name)) == ARGUMENTS[name]


@pytest.mark.parametrize("name", [name for name in ARGUMENTS if name != "didemo"])
def test_the_example_is_an_input_of_the_task(name: str) -> None:
    task = task_of(name)
    assert collect_inputs(task, [eval(example_input(task))])


@pytest.mark.parametrize(
    "name, words, lines",
    [
        ("sst2", ["a", "b"], ["a", "b"]),
        ("mnli", ["a", "b", "c", "d"], ["a | b", "c | d"]),
        ("three", ["a", "b", "c"], ["a | b | c"]),
        ("didemo", [], []),
    ],
)
def test_load_py_predicts_for_its_arguments(
    name: str,
    words: list[str],
    lines: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_script(task_of(name), tmp_path, words, monkeypatch)
    assert capsys.readouterr().out.splitlines() == lines


def test_load_py_takes_columns_of_lists_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of("commonsense")
    example = example_input(task)
    assert isinstance(json.loads(example)["choices"], list)
    run_script(task, tmp_path, [example, example], monkeypatch)
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    "name, words, message",
    [
        ("mnli", ["a", "b", "c"], "usage: python load.py PREMISE HYPOTHESIS ..."),
        ("three", ["a"], "usage: python load.py INSTRUCTION CONTEXT MY_QUESTION ..."),
        ("sst2", [], "usage: python load.py TEXT ..."),
        ("commonsense", [], "usage: python load.py JSON ..."),
        ("commonsense", ["a text"], "not JSON: "),
    ],
)
def test_load_py_refuses_incomplete_inputs(
    name: str, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_script(task_of(name), tmp_path, words, monkeypatch)
    assert str(stop.value).startswith(message)


def test_a_wrong_number_of_columns_is_no_pair() -> None:
    with pytest.raises(UserError, match=r"a tuple or mapping \(instruction, context, my question"):
        collect_inputs(task_of("three"), [("a", "b")])
