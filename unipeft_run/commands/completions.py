"""Find the words that complete a command line: commands, options, runs, keys and their values.

Imports neither Hydra nor pydantic, so that a completion is fast; see `completion_cache`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from unipeft_run.commands.completion_cache import Vocabulary, read_vocabulary
from unipeft_run.commands.completion_table import (
    AXES,
    CHOICES,
    CONFIGURED,
    EVERYWHERE,
    EXPERIMENTS,
    FAMILIES,
    KEYS,
    OPTIONS,
    RUNS,
    SLOTS,
    TASKS,
    WORDS,
    Values,
)
from unipeft_run.commands.dispatch import COMMANDS
from unipeft_run.commands.entry import split_config_dirs
from unipeft_run.errors import UserError
from unipeft_run.extensions import extended_by, groups, options
from unipeft_run.runs.search import search

METRIC_KEYS = ("metric", "task.metric")
MOST_RUNS = 500


def print_completions(words: Sequence[str]) -> int:
    """Print the completions of the last word, one per line; return the exit code."""
    *before, word = words or [""]
    with suppress(UserError):
        rest, folders = split_config_dirs(before)
        with extended_by(folders):
            print("\n".join(complete([*rest, word])))
    return 0


def complete(words: Sequence[str]) -> list[str]:
    """Return the completions of the last of `words`, which follow the program's name."""
    *before, word = words or [""]
    if not before:
        return _starting(word, [name for name, command in COMMANDS.items() if command.listed])
    line = _Line.read(before)
    if values := line.option_values(before[-1]):
        return _starting(word, values)
    key, equals, value = word.partition("=")
    if equals:
        *others, last = value.split(",")
        head = f"{key}={''.join(f'{other},' for other in others)}"
        return [head + choice for choice in _starting(last, line.key_values(key))]
    if word.startswith("-"):
        return _starting(word, [*line.options(), *EVERYWHERE])
    return _starting(word, list(line.words(is_next=len(before) == line.length)))


def _starting(word: str, words: Sequence[str]) -> list[str]:
    return sorted({choice for choice in words if choice.startswith(word)})


@dataclass(frozen=True)
class _Line:
    """The words before the one to complete.

    `name`: the command, with its first word if the table lists that, as in "report plan"; `length`:
    the number of words in it. `tasks`: those that the line selects.
    """

    command: str
    name: str
    length: int
    tasks: Sequence[str]

    @staticmethod
    def read(before: Sequence[str]) -> _Line:
        command, *rest = before
        is_two = bool(rest) and rest[0] in WORDS.get(command, ())
        name = f"{command} {rest[0]}" if is_two else command
        values = [word.removeprefix("task=") for word in rest if word.startswith("task=")]
        values += [rest[i + 1] for i, word in enumerate(rest[:-1]) if word == "--task"]
        tasks = [task for value in values for task in value.split(",")]
        return _Line(command, name, 1 + is_two, tasks)

    def options(self) -> dict[str, Values]:
        """Return the options of the command with their values."""
        return dict(OPTIONS.get(self.name, OPTIONS.get(self.command, {})))

    def option_values(self, flag: str) -> Sequence[str]:
        """Return the values of an option; () if it has none, or takes any text."""
        return _look_up(self.options().get(flag, ()))

    def words(self, is_next: bool) -> Iterator[str]:
        """Yield the words and keys; `is_next`: the word to complete follows `name` directly."""
        if is_next:
            yield from _look_up(WORDS.get(self.name, ()))
        if self.name in RUNS:
            yield from _run_ids()
        if self.name != "report plan" or not is_next:  # the experiment comes first
            yield from (f"{key}=" for key in self._keys())

    def _keys(self) -> Iterator[str]:
        """Yield the keys: of runs, of groups, axes of slots, and short keys of the tasks."""
        yield from KEYS.get(self.name, ())
        words = read_vocabulary() if self.name in (*CONFIGURED, "score") else None
        if words and self.name in CONFIGURED:
            yield from (group for group in groups() if group not in (*AXES, "hydra"))
            yield from (f"{axis}@{slot}" for axis in AXES for slot in SLOTS)
            yield from words.keys
        if words:
            known = words.score_keys if self.name == "score" else words.short_keys
            yield from (key for task in self.tasks for key in known.get(task, ()))

    def key_values(self, key: str) -> Sequence[str]:
        """Return the choices of a key: of an option, a group, or the type of the key."""
        key = key.lstrip("+")
        if values := self.option_values(f"--{key}"):
            return values
        if self.command == "eval" and key == "run":
            return _run_ids()
        if key == "experiment":
            return read_vocabulary().experiments
        if (group := key.partition("@")[0]) in groups():
            return options(group)
        return CHOICES.get(key) or _typed_values(key, read_vocabulary())


def _typed_values(key: str, words: Vocabulary) -> Sequence[str]:
    return words.metrics if key in METRIC_KEYS else words.keys.get(key, ())


def _look_up(values: Values) -> Sequence[str]:
    """Return the values that a marker of the table stands for; others unchanged."""
    if values == EXPERIMENTS:
        return read_vocabulary().experiments
    if values == TASKS:
        return options("task")
    if values == FAMILIES:
        from unipeft_run.backbones import families

        return list(families.FAMILIES)
    return values


def _run_ids() -> list[str]:
    """List the ids of runs in outputs; task/method/id where an id names two of them."""
    runs: list[Path] = []
    for found in search([Path("outputs")]):
        if len(runs) == MOST_RUNS:
            break
        runs += [] if found.problem else [found.path]
    names = [run.name for run in runs]
    labels = {run: "/".join(run.parts[-3:]) for run in runs}
    return [run.name if names.count(run.name) == 1 else labels[run] for run in runs]
