"""unipeft score: compute a task's metrics on plain text files, one example per line.

Imports nothing heavy: no torch, no datasets.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipeft_run.commands.arguments import Parser, as_json, expand_path
from unipeft_run.commands.entry import entry
from unipeft_run.config.messages import find_option, options, unknown_choice, unknown_key
from unipeft_run.config.schema import TaskConfig
from unipeft_run.config.short_keys import expand_short_keys
from unipeft_run.errors import UserError

if TYPE_CHECKING:
    from unipeft_run.data.tasks.base import Task

HELP = """\
Score each line of one file against the same line of the other, as the task's evaluation does.
Classes are names or numbers. Each metric is printed with its signature."""
EXAMPLES = """\
unipeft score task=xsum predictions=FILE references=FILE --format json

task=xsum:         task.rouge_tokenizer=unicode for text in a script other than Latin
task=wmt16_en_ro:  task.target_language=LANGUAGE for translations not into Romanian (ro)
task=text2text:    metric=NAME,... target_language=LANGUAGE task.rouge_tokenizer=null
task=text_classification:  metric=NAME,... labels=NAME,...;
                   by default all labels that occur in the two files
task=causal_lm:    metric=NAME,... extract=NAME answer_words=WORD,... marker=TEXT: docs/causal.md
task=cifar100:     task.labels=NAME,...; by default the 100 classes of CIFAR-100"""
USAGE = "unipeft score task=NAME predictions=FILE references=FILE"
FILES = ("predictions", "references")
KEYS = ("task", *FILES, "format")
TASK_KEYS = {
    "xsum": ("rouge_tokenizer",),
    "wmt16_en_ro": ("target_language",),
    "text2text": ("metric", "target_language", "rouge_tokenizer"),
    "text_classification": ("metric", "labels"),
    "cifar100": ("labels",),
    "causal_lm": ("metric", "extract", "answer_words", "marker"),
}
LISTS = ("metric", "labels", "answer_words")  # keys of a task that hold several values
TOKENIZERS = ("unicode", "null")


@entry
def main(argv: Sequence[str]) -> int:
    """Score two files and print the metrics; return the exit code."""
    args = parse_arguments(argv)
    files = [getattr(args, name) for name in FILES]
    task = make_task(args.task, args.overrides, files)
    sides = [read_examples(task, file) for file in files]
    check_lengths(files, sides)
    print(format_scores(task, *sides, as_table=args.format == "text"))
    return 0


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; `overrides` maps task keys to values. Raises `UserError`."""
    parser = Parser("score", HELP, EXAMPLES)
    parser.add_argument("--task", metavar="NAME", help="the task")
    for name in FILES:
        parser.add_argument(
            f"--{name}", type=expand_path, metavar="FILE", help="one example per line"
        )
    parser.add_argument("words", nargs="*", metavar="task.KEY=VALUE", help="see below")
    parser.add_format("text", "json")
    args = parser.parse(argv)
    words = expand_short_keys([f"task={args.task}", *args.words])
    args.overrides = dict(map(_split_word, words[1:]))
    if missing := [name for name in ("task", *FILES) if getattr(args, name) is None]:
        raise UserError(f"missing: {', '.join(missing)}. Usage: {USAGE}")
    return args


def _split_word(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or not key.startswith("task."):
        raise UserError(unknown_key(key, KEYS))
    return key, value


def make_task(name: str, given: Mapping[str, str], files: Sequence[Path]) -> Task:
    """Build the task of conf/task/NAME.yaml with its overrides. Raises `UserError`."""
    from omegaconf import OmegaConf

    from unipeft_run.config.validation import check, check_task
    from unipeft_run.config.yaml_files import load_config
    from unipeft_run.data.new_inputs import check_predicts
    from unipeft_run.data.tasks.build import build_task

    if name not in options("task"):
        raise UserError(unknown_choice("task", name, options("task")))
    overrides = check_overrides(name, given)
    if name in CLASSES_OF and "labels" not in overrides:
        overrides["labels"] = CLASSES_OF[name](files)
    config = load_config(find_option("task", name)).task
    task = check(TaskConfig, OmegaConf.to_container(OmegaConf.merge(config, overrides)), "task")
    built = build_task(check_task(task))
    check_predicts(built)
    return built


def check_overrides(name: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Check the task.KEY=VALUE arguments: the metrics of task `name` depend on them."""
    known = [f"task.{key}" for key in TASK_KEYS.get(name, ())]
    overrides: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise UserError(unknown_key(key, known or KEYS))
        if key == "task.rouge_tokenizer" and value not in TOKENIZERS:
            raise UserError(unknown_choice(key, value, TOKENIZERS))
        name = key.removeprefix("task.")
        items = [item.strip() for item in value.strip("[] ").split(",")]
        several = items if name in LISTS else value
        overrides[name] = None if value == "null" else several
    return overrides


def find_labels(files: Sequence[Path]) -> list[str]:
    """List the distinct lines of `files`, which name classes. Raises `UserError` for only one."""
    from unipeft_run.data.tasks.labels import order_labels

    lines = [line.strip() for file in files for line in _read_lines(file)]
    labels = list(order_labels(filter(None, lines)))
    if len(labels) < 2:
        found = f"only the class {labels[0]}" if labels else "no classes"
        raise UserError(f"the two files contain {found}; name all classes, as in labels=[yes,no]")
    return labels


def cifar_classes(files: Sequence[Path]) -> list[str]:
    """Return CIFAR-100's classes."""
    from unipeft_run.data.tasks.cifar100 import CLASSES

    return list(CLASSES)


# tasks whose classes are not in their YAML -> their names, for the files to score
CLASSES_OF = {"text_classification": find_labels, "cifar100": cifar_classes}


def read_examples(task: Task, file: Path) -> list[Any]:
    """Read one example per line: a text, a class by name or number, or a number.

    Only a line feed, or a carriage return before it, ends a line; a byte-order mark is skipped.
    Raises `UserError` if the file cannot be read.
    """
    lines = _read_lines(file)
    if task.columns.numbers:
        return [_parse_number(line, f"{file}, line {n}") for n, line in enumerate(lines, start=1)]
    if not task.label_names:
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


def _parse_number(text: str, where: str) -> float:
    from unipeft_run.data.tasks.labels import LabelError, parse_number

    try:
        return parse_number(text)
    except LabelError as error:
        raise UserError(f"{where}: {error}") from error


def _parse_class(text: str, names: Sequence[str], where: str) -> int:
    from unipeft_run.data.tasks.labels import is_number_name

    by_number = (
        {}
        if any(map(is_number_name, names))
        else {str(number): number for number in range(len(names))}
    )
    by_name = {name.casefold(): number for number, name in enumerate(names)}
    classes: Mapping[str, int] = by_number | by_name
    if text.casefold() not in classes:
        raise UserError(f"{where}: {unknown_choice('class', text, names)}")
    return classes[text.casefold()]


def check_lengths(files: Sequence[Path], sides: Sequence[Sequence[Any]]) -> None:
    """Raise `UserError` unless both files hold the same number of examples."""
    if len(sides[0]) != len(sides[1]):
        counts = " and ".join(
            f"{file} has {len(lines)}" for file, lines in zip(files, sides, strict=True)
        )
        raise UserError(f"Both files must have the same number of lines: {counts}.")


def format_scores(
    task: Task, predictions: Sequence[Any], references: Sequence[Any], *, as_table: bool
) -> str:
    """Score the predictions; return a table of the metrics, or JSON."""
    scores = task.score(predictions, references)
    if not as_table:
        content = {"task": task.name, "examples": len(references), "metrics": scores.metrics}
        return as_json({**content, "signatures": scores.signatures})
    plural = "s" * (len(references) != 1)
    rows = [f"{task.name}, {len(references)} example{plural}"]
    for name, value in scores.metrics.items():
        rows.append(f"{name:<12}{value:>8.2f}  {scores.signatures[name]}")
    return "\n".join(rows)
