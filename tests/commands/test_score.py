"""unipeft-score: text files in, metrics with signatures out; wrong words and files one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unipeft_run.commands.score import main
from unipeft_run.evaluation.metrics import bleu, rouge

ROMANIAN = ["de interese, de p\u0103reri etc.", "El vine."]
OTHERS = ["de interese, de pareri etc.", "El pleac\u0103."]


def files(folder: Path, predictions: list[str], references: list[str]) -> list[str]:
    words = []
    for key, lines in (("predictions", predictions), ("references", references)):
        (folder / key).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        words.append(f"{key}={folder / key}")
    return words


def test_a_translation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["task=wmt16_en_ro", *files(tmp_path, OTHERS, ROMANIAN)]) == 0
    scores = bleu(OTHERS, ROMANIAN)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == "wmt16_en_ro, 2 examples"
    for row, (name, value) in zip(rows, scores.metrics.items(), strict=True):
        assert row.split(maxsplit=2) == [name, f"{value:.2f}", scores.signatures[name]]


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = files(tmp_path, ["a cat\u2028sat"], ["the cat sat"])
    assert main(["task=xsum", *words, "format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 1
    assert found["metrics"] == rouge(["a cat sat"], ["the cat sat"]).metrics


@pytest.mark.parametrize("task", ["mnli", "sst2"])
def test_classes_by_name_or_number(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"mnli": ["entailment", "neutral"], "sst2": ["negative", "positive"]}[task]
    words = files(tmp_path, ["0", "1", names[0], names[1]], [*names, names[0], "0"])
    assert main([f"task={task}", *words, "format=json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {"accuracy": 75.0}


WRONG = {
    "nothing": ([], "task, predictions, references: missing"),
    "a task": (["task=xsun"], "task=xsun is not known (did you mean xsum?)"),
    "a key": (["tusk=xsum"], "did you mean task?"),
    "no value": (["task="], "has no value"),
    "a format": (["format=xml"], "format=xml is not known"),
    "no file": (["predictions=gone"], "gone cannot be read: No such file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_words_are_a_sentence(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, sentence = WRONG[case]
    right = [] if case == "nothing" else ["task=xsum", *files(tmp_path, ["a"], ["b"])]
    assert main([*right, *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_wrong_files_are_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(task: str, words: list[str]) -> str:
        assert main([f"task={task}", *words]) == 2
        return capsys.readouterr().err

    assert "has 2 lines" in said("xsum", files(tmp_path, ["a", "b"], ["a"]))
    assert "is empty" in said("xsum", files(tmp_path, [], []))
    words = files(tmp_path, ["positve"], ["positive"])
    assert "line 1: class=positve is not known (did you mean positive?)" in said("sst2", words)
    (tmp_path / "predictions").write_bytes(b"a\xff\n")
    assert "is not UTF-8 (byte 2)" in said("xsum", words)


def test_help_and_light_imports() -> None:
    program = (
        "import sys; from unipeft_run.commands.score import main; code = main(['--help']); "
        "sys.exit(code or bool({'torch', 'datasets', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0
    assert "references=FILE" in done.stdout
