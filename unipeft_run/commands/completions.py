"""Find the words that complete a command line: commands, options, runs, keys and their values.

Reads YAML files as text and imports neither Hydra nor pydantic, so that a completion is fast. The
keys of the schema, which need pydantic, are cached.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from unipeft_run.commands.dispatch import COMMANDS
from unipeft_run.commands.entry import split_config_dirs
from unipeft_run.data.cache import cache_root
from unipeft_run.errors import UserError
from unipeft_run.extensions import config_dirs, extended_by, groups, options
from unipeft_run.runs.search import search

SLOTS = ("attn", "ffn", "input", "matrix")
AXES = ("form", "insertion", "representation", "composition")
# commands that take the keys of a run
CONFIGURED = ("train", "params", "space", "report", "import-official")
NAMING_RUNS = ("eval", "predict", "export", "export-peft", "runs", "report", "params")
EVERYWHERE = ("--config-dir", "--help", "--version")
OPTIONS = {
    "train": ("--multirun", "--cfg", "--resolve"),
    "eval": ("--split", "--format", "--allow", "--multirun"),
    "predict": ("--out", "--format", "--column", "--force", "--allow"),
    "export": ("--out", "--format", "--force", "--allow"),
    "runs": ("--stale", "--retry-failed", "--format", "--to", "--mode", "--again", "--allow"),
    "report": ("--format", "--experiment", "--out"),
    "params": ("--format", "--allow"),
    "score": ("--format",),
    "import-official": ("--options", "--out", "--config", "--force"),
    "export-peft": ("--out", "--force", "--allow"),
    "new": ("--dir", "--path", "--hub", "--family"),
    "completion": ("--install",),
}
WORDS = {  # first positional words of a command
    "space": ("list", "count", "explain", "solve"),
    "runs": ("push",),
    "report": ("plan", "curves", "shares"),
    "new": ("form", "composition", "method", "task", "backbone"),
    "completion": ("bash", "zsh", "fish"),
    "score": ("task=", "predictions=", "references=", "format="),
}
VALUES = {  # options and keys with a few values
    "--format": ("text", "json", "markdown", "csv"),
    "format": ("text", "json", "markdown", "csv"),
    "--cfg": ("job", "hydra", "all"),
    "--to": ("wandb", "tensorboard"),
    "--mode": ("online", "offline"),
    "--split": ("validation", "test"),
    "split": ("validation", "test"),
    "state": ("running", "interrupted", "stale", "done", "failed", "diverged", "damaged"),
    "--family": ("bart", "mbart", "roberta"),
}
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
    command, previous = before[0], before[-1]
    if previous in VALUES:
        return _starting(word, VALUES[previous])
    key, equals, value = word.partition("=")
    if equals:
        *others, last = value.split(",")
        head = f"{key}={''.join(f'{other},' for other in others)}"
        return [head + choice for choice in _starting(last, _values(command, key))]
    return _starting(word, _words(command, word, first=len(before) == 1))


def _starting(word: str, words: Sequence[str]) -> list[str]:
    return sorted({choice for choice in words if choice.startswith(word)})


def _words(command: str, word: str, first: bool) -> list[str]:
    if word.startswith("-"):
        return [*OPTIONS.get(command, ()), *EVERYWHERE]
    words = list(WORDS.get(command, ())) if first or command == "score" else []
    if first and command == "space":  # asks a question first
        return words
    if command in NAMING_RUNS:
        words += _run_ids()
    if command in CONFIGURED:
        words += [f"{key}=" for key in _keys()]
    return words


def _values(command: str, key: str) -> Sequence[str]:
    """Return the choices of a key: the files of its group, or the values of its type."""
    group = key.lstrip("+").partition("@")[0]
    if group in groups():
        return options(group)
    if command == "eval" and key == "run":
        return _run_ids()
    return _schema().get(key.lstrip("+"), VALUES.get(key, ()))


def _keys() -> Iterator[str]:
    """Yield the keys that an override can set: groups, axes of slots, and keys of the schema."""
    yield from (group for group in groups() if group not in AXES)
    yield from (f"{axis}@{slot}" for axis in AXES for slot in SLOTS)
    yield from _schema()


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


def _schema() -> dict[str, list[str]]:
    """Map each key of the schema to its choices, from the cache if the schema is unchanged."""
    source = Path(__file__).parents[1] / "config" / "schema.py"
    stamp = f"{source} {source.stat().st_mtime_ns} {config_dirs()}"
    file = cache_root() / "completion.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(file.read_bytes())
        if content["stamp"] == stamp:
            return {str(key): list(map(str, values)) for key, values in content["keys"].items()}
    from unipeft_run.commands.key_help import key_choices

    keys = key_choices()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{os.getpid()}")
        part.write_text(json.dumps({"stamp": stamp, "keys": keys}))
        part.replace(file)
    return keys
