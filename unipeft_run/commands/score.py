"""unipeft-score: compute a task's metrics on plain text files, one example per line.

Imports nothing heavy: no torch, no datasets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.config.messages import conf_dir, options, unknown_choice, unknown_key
from unipeft_run.config.schema import TaskConfig
from unipeft_run.config.short_keys import expand_short_keys
from unipeft_run.errors import UserError

if TYPE_CHECKING:
    from unipeft_run.data.tasks.base import Task

USAGE = """\
unipeft-score task=NAME predictions=FILE references=FILE [format=text|json] [task.KEY=VALUE]

Scores each line of one file against the same line of the other, as the task's evaluation does.
Classes are names or numbers. Each metric is printed with its signature.

task=xsum:         task.rouge_tokenizer=unicode for text in a script other than Latin
task=wmt16_en_ro:  task.target_language=LANGUAGE for translations not into Romanian (ro)
task=text2text:    metric=NAME,... target_language=LANGUAGE task.rouge_tokenizer=null
task=text_classification:  metric=NAME,... labels=NAME,...; by default the labels in the files"""
FILES = ("predictions", "references")
KEYS = ("task", *FILES, "format")
TASK_KEYS = {
    "xsum": ("rouge_tokenizer",),
    "wmt16_en_ro": ("target_language",),
    "text2text": ("metric", "target_language", "rouge_tokenizer"),
    "text_classification": ("metric", "labels"),
}
LISTS = ("metric", "labels")  # keys of a task that hold several values
TOKENIZERS = ("unicode", "null")


def score() -> NoReturn:
    """Run unipeft-score."""
    ignore_broken_pipes()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit code: 0, or 2 for a user error."""
    if {"-h", "--help"} & set(argv):
        print(USAGE)
        return 0
    try:
        arguments = parse_arguments(argv)
        task = make_task(arguments)
        files = [Path(arguments[key]) for key in FILES]
        sides = [read_examples(task, file) for file in files]
        check_lengths(files, sides)
        print(format_scores(task, *sides, as_json=arguments["format"] == "json"))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def parse_arguments(argv: Sequence[str]) -> dict[str, str]:
    """Parse `key=value` arguments. Raises `UserError` for an unknown or missing key."""
    arguments = {"format": "text"}
    for argument in expand_short_keys(argv):
        key, equals, value = argument.partition("=")
        if key not in KEYS and not key.startswith("task."):
            raise UserError(unknown_key(key, KEYS))
        if not equals or not value:
            raise UserError(f"{argument}: no value given; write {key}=...")
        arguments[key] = value
    if missing := [key for key in KEYS if key not in arguments]:
        raise UserError(f"missing: {', '.join(missing)}. Usage: {USAGE.splitlines()[0]}")
    if arguments["format"] not in ("text", "json"):
        raise UserError(unknown_choice("format", arguments["format"], ("text", "json")))
    return arguments


def make_task(arguments: Mapping[str, str]) -> Task:
    """Build the task of conf/task/NAME.yaml with its overrides. Raises `UserError`."""
    from omegaconf import OmegaConf

    from unipeft_run.config.validation import check, check_task
    from unipeft_run.data.tasks.build import build_task

    name = arguments["task"]
    if name not in options("task"):
        raise UserError(unknown_choice("task", name, options("task")))
    overrides = parse_overrides(name, arguments)
    if name == "text_classification" and "labels" not in overrides:
        overrides["labels"] = find_labels([Path(arguments[key]) for key in FILES])
    config = OmegaConf.load(conf_dir() / "task" / f"{name}.yaml").task
    task = check(TaskConfig, OmegaConf.to_container(OmegaConf.merge(config, overrides)), "task")
    check_task(task)
    return build_task(task)


def parse_overrides(name: str, arguments: Mapping[str, str]) -> dict[str, Any]:
    """Collect the task.KEY=VALUE arguments that the metrics of task `name` depend on."""
    known = [f"task.{key}" for key in TASK_KEYS.get(name, ())]
    overrides: dict[str, Any] = {}
    for key in arguments.keys() - set(KEYS):
        if key not in known:
            raise UserError(unknown_key(key, known or KEYS))
        value = arguments[key]
        if key == "task.rouge_tokenizer" and value not in TOKENIZERS:
            raise UserError(unknown_choice(key, value, TOKENIZERS))
        name = key.removeprefix("task.")
        several = value.strip("[]").split(",") if name in LISTS else value
        overrides[name] = None if value == "null" else several
    return overrides


def find_labels(files: Sequence[Path]) -> list[str]:
    """List the distinct lines of `files`, which are classes. Raises `UserError`."""
    from unipeft_run.data.tasks.own_source import order_labels

    return list(order_labels([line.strip() for file in files for line in _read_lines(file)]))


def read_examples(task: Task, file: Path) -> list[Any]:
    """Read one example per line: a text, or a class by name or number.

    Only a line feed, or a carriage return before it, ends a line; a byte-order mark is skipped.
    Raises `UserError` if the file cannot be read.
    """
    lines = _read_lines(file)
    if task.kind != "classification":
        return lines
    return [
        _parse_class(line.strip(), task.label_names, f"{file}, line {number}")
        for number, line in enumerate(lines, start=1)
    ]


def _read_lines(file: Path) -> list[str]:
    try:
        content = file.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise UserError(
            f"{file}, line {number}: byte 0x{byte:02x} is not UTF-8; convert the file to UTF-8."
        ) from error
    if not text:
        raise UserError(f"{file}: the file is empty.")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _parse_class(text: str, names: Sequence[str], where: str) -> int:
    by_number = (
        {}
        if all(map(str.isdecimal, names))
        else {str(number): number for number in range(len(names))}
    )
    classes: Mapping[str, int] = by_number | {name: number for number, name in enumerate(names)}
    if text not in classes:
        raise UserError(f"{where}: {unknown_choice('class', text, names)}")
    return classes[text]


def check_lengths(files: Sequence[Path], sides: Sequence[Sequence[Any]]) -> None:
    """Raise `UserError` unless both files hold the same number of examples."""
    if len(sides[0]) != len(sides[1]):
        counts = " and ".join(
            f"{file} has {len(lines)}" for file, lines in zip(files, sides, strict=True)
        )
        raise UserError(f"Both files must have the same number of lines: {counts}.")


def format_scores(
    task: Task, predictions: Sequence[Any], references: Sequence[Any], *, as_json: bool
) -> str:
    """Score the predictions; return a table of the metrics, or JSON."""
    scores = task.score(predictions, references)
    if as_json:
        content = {"task": task.name, "examples": len(references), "metrics": scores.metrics}
        return json.dumps({**content, "signatures": scores.signatures}, indent=2)
    rows = [f"{task.name}, {len(references)} examples"]
    for name, value in scores.metrics.items():
        rows.append(f"{name:<12}{value:>8.2f}  {scores.signatures[name]}")
    return "\n".join(rows)
