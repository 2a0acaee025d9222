"""The words of completion that need slow imports: keys, experiments, metrics. Cached in a file."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from unipeft_run.data.cache import cache_root
from unipeft_run.extensions import conf_dir, config_dirs, file_stamp

PACKAGE = Path(__file__).parents[1]
SOURCES = (  # the words change with these files
    PACKAGE / "config" / "schema.py",
    PACKAGE / "config" / "short_keys.py",
    PACKAGE / "commands" / "score.py",
    PACKAGE / "evaluation" / "metrics" / "by_name.py",
)

GROUPS = ("experiment", "form", "composition", "task")  # their files and classes declare keys


@dataclass(frozen=True)
class Vocabulary:
    """Words of completion: keys of the schema with their values, and other names.

    `short_keys` and `score_keys` are by task; the latter are those of `unipeft score`.
    """

    keys: dict[str, list[str]]
    short_keys: dict[str, list[str]]
    score_keys: dict[str, list[str]]
    experiments: list[str]
    metrics: list[str]


def read_vocabulary() -> Vocabulary:
    """Return the vocabulary, from the cache if its sources are unchanged."""
    stamp = _stamp()
    file = cache_root() / "completion.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(file.read_bytes())
        if content["stamp"] == stamp:
            return Vocabulary(**content["words"])
    words = _collect()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{os.getpid()}")
        part.write_text(json.dumps({"stamp": stamp, "words": asdict(words)}))
        part.replace(file)
    return words


def _stamp() -> str:
    sources = [f"{file} {file.stat().st_mtime_ns}" for file in SOURCES]
    folders = [folder / group for folder in (conf_dir(), *config_dirs()) for group in GROUPS]
    files = [file_stamp(*folders, pattern=pattern) for pattern in ("*.yaml", "*.py")]
    return "\n".join([*map(str, config_dirs()), *sources, json.dumps(files)])


def _collect() -> Vocabulary:
    from unipeft_run.commands.key_help import key_choices
    from unipeft_run.commands.score import TASK_KEYS
    from unipeft_run.config.experiments import names
    from unipeft_run.config.short_keys import SHORT_KEYS
    from unipeft_run.evaluation.metrics.by_name import METRICS

    return Vocabulary(
        keys=key_choices(),
        short_keys={task: list(keys) for task, keys in SHORT_KEYS.items()},
        score_keys={
            task: [key if key in SHORT_KEYS.get(task, ()) else f"task.{key}" for key in keys]
            for task, keys in TASK_KEYS.items()
        },
        experiments=names(),
        metrics=list(METRICS),
    )
