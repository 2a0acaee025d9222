"""The console command unipeft-score: a task's metrics of plain text files, one example a line.

Imports nothing heavy: no torch, no datasets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.config.messages import conf_dir, options, unknown_choice, unknown_key
from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics import Scores

USAGE = """\
unipeft-score task=NAME predictions=FILE references=FILE [format=text|json]

Scores FILE against FILE, line by line, as the task's evaluation does. Texts are taken as they are;
classes are names or numbers. Prints each metric with how it was computed."""
KEYS = ("task", "predictions", "references", "format")


def score() -> NoReturn:
    """unipeft-score: score text files."""
    ignore_broken_pipes()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """The exit code: 0 done, 2 the words are wrong or a file is not there."""
    if {"-h", "--help"} & set(argv):
        print(USAGE)
        return 0
    try:
        words = parsed(argv)
        task = make_task(words["task"])
        pairs = {key: read(task, Path(words[key])) for key in ("predictions", "references")}
        print(shown(words, task, **pairs))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def parsed(argv: Sequence[str]) -> dict[str, str]:
    """The words `key=value` by key. Raises `UserError` for one that is unknown or missing."""
    words = {"format": "text"}
    for word in argv:
        key, equals, value = word.partition("=")
        if key not in KEYS:
            raise UserError(unknown_key(key, KEYS))
        if not equals or not value:
            raise UserError(f"{word} has no value: say {key}=...")
        words[key] = value
    if missing := [key for key in KEYS if key not in words]:
        raise UserError(f"{', '.join(missing)}: missing; say {USAGE.splitlines()[0]}")
    if words["format"] not in ("text", "json"):
        raise UserError(unknown_choice("format", words["format"], ("text", "json")))
    return words


def make_task(name: str) -> Any:
    """The task of conf/task/NAME.yaml. Raises `UserError` if there is none."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    if name not in options("task"):
        raise UserError(unknown_choice("task", name, options("task")))
    return instantiate(OmegaConf.load(conf_dir() / "task" / f"{name}.yaml").task)


def read(task: Any, file: Path) -> list[Any]:
    """What `file` holds, one example a line: a text, or a class by name or number.

    Only a line feed ends a line. Raises `UserError` where that cannot be read.
    """
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 (byte {error.start + 1})") from error
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if lines == [""]:
        raise UserError(f"{file} is empty")
    if task.kind != "classification":
        return lines
    return [
        _class(line.strip(), task.label_names, f"{file}, line {number}")
        for number, line in enumerate(lines, start=1)
    ]


def _class(word: str, names: Sequence[str], where: str) -> int:
    numbers = {str(number): number for number in range(len(names))}
    known: Mapping[str, int] = numbers | {name: number for number, name in enumerate(names)}
    if word not in known:
        raise UserError(f"{where}: {unknown_choice('class', word, names)}")
    return known[word]


def shown(
    words: Mapping[str, str], task: Any, predictions: list[Any], references: list[Any]
) -> str:
    """The scores, for people or as JSON. Raises `UserError` if the files differ in length."""
    if len(predictions) != len(references):
        raise UserError(
            f"{words['predictions']} has {len(predictions)} lines, "
            f"{words['references']} has {len(references)}: they must be the same examples"
        )
    scores: Scores = task.score(predictions, references)
    if words["format"] == "json":
        content = {"task": task.name, "examples": len(references), "metrics": scores.metrics}
        return json.dumps({**content, "signatures": scores.signatures}, indent=2)
    rows = [f"{task.name}, {len(references)} examples"]
    for name, value in scores.metrics.items():
        rows.append(f"{name:<12}{value:>8.2f}  {scores.signatures[name]}")
    return "\n".join(rows)
