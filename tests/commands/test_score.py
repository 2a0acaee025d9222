"""unipeft-score: metrics with signatures from text files; one sentence for every user error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unipeft_run.commands.score import TASK_KEYS, main
from unipeft_run.evaluation.metrics import bleu, rouge

ROMANIAN = ["de interese, de p\u0103reri etc.", "El vine."]
OTHERS = ["de interese, de pareri etc.", "El pleac\u0103."]


def write_files(folder: Path, predictions: list[str], references: list[str]) -> list[str]:
    """Write both files; return the arguments that name them."""
    arguments = []
    for key, lines in (("predictions", predictions), ("references", references)):
        (folder / key).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        arguments.append(f"{key}={folder / key}")
    return arguments


def test_translations_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["task=wmt16_en_ro", *write_files(tmp_path, OTHERS[:1], ROMANIAN[:1])]) == 0
    assert capsys.readouterr().out.startswith("wmt16_en_ro, 1 example\n")
    assert main(["task=wmt16_en_ro", *write_files(tmp_path, OTHERS, ROMANIAN)]) == 0
    scores = bleu(OTHERS, ROMANIAN)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == "wmt16_en_ro, 2 examples"
    for row, (name, value) in zip(rows, scores.metrics.items(), strict=True):
        assert row.split(maxsplit=2) == [name, f"{value:.2f}", scores.signatures[name]]


def test_summaries_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = write_files(tmp_path, ["a cat\u2028sat"], ["the cat sat"])
    assert main(["task=xsum", *arguments, "format=json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["examples"] == 1
    assert output["metrics"] == rouge(["a cat sat"], ["the cat sat"]).metrics


@pytest.mark.parametrize("task", [["task=text2text"], ["--task", "text2text"]])
def test_short_keys(task: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = write_files(tmp_path, ["a cat"], ["a cat"])
    assert main(["metric=exact_match", *task, *arguments, "--format=json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {"exact_match": 100.0}


@pytest.mark.parametrize("task", ["mnli", "sst2"])
def test_classes_are_names_or_numbers(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"mnli": ["entailment", "neutral"], "sst2": ["negative", "positive"]}[task]
    arguments = write_files(tmp_path, ["0", "1", names[0], names[1]], [*names, names[0], "0"])
    assert main([f"task={task}", *arguments, "format=json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {"accuracy": 75.0}


def score_bytes(task: str, predictions: bytes, references: bytes, folder: Path) -> int:
    (folder / "predictions").write_bytes(predictions)
    (folder / "references").write_bytes(references)
    files = [f"{key}={folder / key}" for key in ("predictions", "references")]
    return main([f"task={task}", *files, "format=json"])


@pytest.mark.parametrize(
    ("predictions", "references", "examples"),
    [
        (b"\xef\xbb\xbfthe cat\nsat down\n", b"the cat\nsat down\n", 2),  # byte-order mark
        (b"the cat\r\nsat down\r\n", b"the cat\nsat down", 2),
        (b"the\0cat\n", b"the cat\n", 1),
        ("the\u2028cat\n".encode(), "the\u0085cat\n".encode(), 1),
    ],
)
def test_encodings_and_line_ends(
    predictions: bytes,
    references: bytes,
    examples: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert score_bytes("xsum", predictions, references, tmp_path) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["examples"] == examples
    assert output["metrics"]["rouge2"] == pytest.approx(100.0)


def test_marks_and_carriage_returns_in_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score_bytes("sst2", b"\xef\xbb\xbfnegative\r\n1\r\n", b"0\n1\n", tmp_path) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {"accuracy": 100.0}


@pytest.mark.parametrize("task", ["xsum", "wmt16_en_ro"])
def test_empty_lines_are_examples(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score_bytes(task, b"\n", b"a b c d\n", tmp_path) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["examples"] == 1
    assert set(output["metrics"].values()) == {0.0}


def test_rouge_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440"]
    arguments = ["task=xsum", "format=json", *write_files(tmp_path, texts, texts)]
    for extra, score in (([], 0.0), (["unicode"], 100.0), (["null"], 0.0)):
        assert main([*arguments, *(f"task.rouge_tokenizer={name}" for name in extra)]) == 0
        output = json.loads(capsys.readouterr().out)
        assert output["metrics"]["rouge2"] == pytest.approx(score)
        assert f"tokenizer {'unicode' if score else 'default'}" in output["signatures"]["rouge2"]


def test_target_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_files(tmp_path, OTHERS, ROMANIAN)
    assert main(["task=wmt16_en_ro", "format=json", *files, "task.target_language=de"]) == 0
    output = json.loads(capsys.readouterr().out)
    scores = bleu(OTHERS, ROMANIAN, "de")
    assert output["metrics"] == scores.metrics
    assert output["signatures"] == scores.signatures


WRONG = {
    "nothing": ([], "missing: task, predictions, references. Usage: unipeft score task=NAME"),
    "a task": (["task=xsun"], "task=xsun is unknown (did you mean xsum?)"),
    "a key": (["tusk=xsum"], "did you mean task?"),
    "no value": (["task="], "task=: no value given; write task=..."),
    "a format": (["format=xml"], "format=xml is unknown"),
    "a task key": (["task.rouge_tokeniser=unicode"], "did you mean task.rouge_tokenizer?"),
    "another task's key": (["task.target_language=de"], "no key task.target_language"),
    "a tokenizer": (["task.rouge_tokenizer=ascii"], "choose from unicode, null"),
    "a folder": (["predictions=."], ".: cannot be read: Is a directory"),
    "no file": (["predictions=gone"], "gone: cannot be read: No such file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_give_one_sentence(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, sentence = WRONG[case]
    right = [] if case == "nothing" else ["task=xsum", *write_files(tmp_path, ["a"], ["b"])]
    assert main([*right, *wrong]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert len(err.splitlines()) == 1


BAD_FILES = {
    "two lines, one line": (b"a\nb\n", b"a\n", "predictions has 2 and", "references has 1."),
    "trailing empty line": (b"a\n\n", b"a\n", "predictions has 2 and", "references has 1."),
    "empty": (b"", b"a\n", "predictions: the file is empty.", ""),
    "only a byte-order mark": (b"\xef\xbb\xbf", b"a\n", "predictions: the file is empty.", ""),
    "Latin-1": (b"a\nb\xff\n", b"a\nb\n", "predictions, line 2: byte 0xff is not UTF-8", ""),
    "UTF-16": ("a\n".encode("utf-16"), b"a\n", "predictions, line 1: byte 0xff is not", ""),
    "surrogate": (b"\xed\xa0\x80\n", b"a\n", "predictions, line 1: byte 0xed is not", ""),
    "too long": (b"a " * 6000, b"a " * 6000, "Example 1 is too long for ROUGE-L", "25,000,000"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_give_one_sentence(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, references, *sentences = BAD_FILES[case]
    assert score_bytes("xsum", predictions, references, tmp_path) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(sentence in err for sentence in sentences)
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("word", ["positve", "", "2", "-1", "\u00b2"])
def test_unknown_classes(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["task=sst2", *write_files(tmp_path, ["0", word], ["0", "1"])]) == 2
    err = capsys.readouterr().err
    assert f"predictions, line 2: class={word} is unknown" in err
    assert ("did you mean positive?" in err) == (word == "positve")


@pytest.mark.parametrize("task", TASK_KEYS)
def test_help_and_the_manual_name_every_key(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    (helped,) = [line for line in capsys.readouterr().out.splitlines() if f"task={task}:" in line]
    manual = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    table = manual.partition("takes these")[2].partition("##")[0]
    (listed,) = [line for line in table.splitlines() if f"| `{task}` |" in line]
    assert all(f"{key}=" in helped and f"{key}`" in listed for key in TASK_KEYS[task])


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from unipeft_run.commands.score import main; code = main(['--help']); "
        "sys.exit(code or bool({'torch', 'datasets', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0
    assert "references=FILE" in done.stdout


@pytest.mark.parametrize(
    ("task", "words", "predictions", "references", "expected"),
    [
        ("sst2", [], ["Positive", "NEGATIVE"], ["positive", "positive"], {"accuracy": 50.0}),
        (
            "text_classification",
            ["metric=accuracy"],
            ["Yes"] * 2,
            ["yes", "no"],
            {"accuracy": 50.0},
        ),
        (
            *("causal_lm", ["metric=exact_match", "extract=first_match"]),
            *(
                ["so true", "false, true"],
                ["true", "false"],
                {"accuracy": 100.0, "exact_match": 0.0},
            ),
        ),
    ],
)
def test_words_are_compared_as_in_a_run(
    task: str,
    words: list[str],
    predictions: list[str],
    references: list[str],
    expected: dict[str, float],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = ["answer_words=[true, false]"] if task == "causal_lm" else []
    files = write_files(tmp_path, predictions, references)
    assert main([f"task={task}", *words, *more, *files, "format=json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == expected


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["yes", "Yes"], "contain only the class Yes; name all classes, as in labels=[yes"),
        (["", ""], "the two files contain no classes"),
    ],
)
def test_one_class_is_not_enough(
    lines: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_files(tmp_path, lines, lines)
    assert main(["task=text_classification", *files]) == 2
    assert sentence in capsys.readouterr().err
    given = "labels=[yes, no]", "metric=accuracy"
    assert main(["task=text_classification", *files, *given]) == (0 if lines[0] else 2)
