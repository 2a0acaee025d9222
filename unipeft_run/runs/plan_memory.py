"""Cache which run a command line plans, so that a finished run is found without composing it.

An entry holds the run folder and the file status of everything that the plan depends on: this
package and its YAML files, the extension folders, local data, weights and classes. Any change
invalidates the entry. Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from unipeft_run.data.cache import cache_root
from unipeft_run.data.fingerprint import CLOCK_TICK_NS, file_status
from unipeft_run.extensions import conf_dir, config_dirs

PACKAGE = Path(__file__).parent.parent
ENVIRONMENT = ("HOME", "PYTHONPATH")  # they decide what relative names mean
VARYING = ("${oc.", "${now", "${hydra", "${env")  # interpolations that an entry cannot follow
WRITTEN = ("output", "tracking.")  # keys of folders that a run writes to
MOST_FILES = 2000  # in the extension folders
MOST_PATHS = 20_000  # beyond, composing again is faster


def recall(words: Sequence[str]) -> Path | None:
    """Return the folder of the run that these overrides plan; None if there is no valid entry."""
    if not _is_plain(words):
        return None
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        entry = json.loads(_file(words).read_bytes())
        if entry["source"] == _source_digest() and _unchanged(entry["files"]):
            return Path(entry["folder"])
    return None


def remember(words: Sequence[str], folder: Path, files: Iterable[Path]) -> None:
    """Store that `words` plan the run in `folder`, which depends on `files`."""
    if not _is_plain(words) or any(_varies(folder) for folder in config_dirs()):
        return
    with suppress(OSError):  # a full or read-only cache: compose again next time
        paths = {*_with_parents(files), *_named(words)}
        if len(paths) > MOST_PATHS:
            return
        statuses = {str(path): file_status(path) for path in paths}
        if _is_settled(statuses.values()):
            entry = {"folder": str(folder), "source": _source_digest(), "files": statuses}
            _write(_file(words), json.dumps(entry))


def _is_plain(words: Sequence[str]) -> bool:
    """Return whether the words are overrides without flags and interpolations."""
    return not any(word.startswith("-") or "$" in word or "=" not in word for word in words)


def _file(words: Sequence[str]) -> Path:
    named = {name: os.environ.get(name) for name in ENVIRONMENT}
    key = json.dumps([list(words), os.getcwd(), named, list(map(str, config_dirs()))])
    return cache_root() / "plans" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _source_digest() -> str:
    """Digest the names, sizes and times of our source, our YAML and the extension folders."""
    digest = hashlib.sha256()
    extensions = [(folder, "") for folder in config_dirs()]
    for folder, suffix in ((PACKAGE, ".py"), (conf_dir(), ".yaml"), *extensions):
        for name, size, changed in sorted(_walk(str(folder), suffix)):
            digest.update(f"{name} {size} {changed}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _walk(folder: str, suffix: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith((".", "__pycache__")):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, suffix)
            elif entry.name.endswith(suffix):
                status = entry.stat()
                yield entry.path, status.st_size, status.st_mtime_ns


def _varies(folder: Path) -> bool:
    """Return whether an extension folder depends on more than its files, or is too large."""
    files = [file for file in folder.rglob("*.yaml") if file.is_file()]
    return len(files) > MOST_FILES or any(
        sign in file.read_text(encoding="utf-8", errors="replace")
        for file in files
        for sign in VARYING
    )


def _named(words: Sequence[str]) -> Iterator[Path]:
    """Yield the files and folders that values name, and the files in those folders."""
    for key, _, value in (word.partition("=") for word in words):
        path = Path(os.path.expanduser(value.strip("'\""))).absolute()
        if value and path.exists() and not key.startswith(WRITTEN):
            yield path
            yield from (file for file in path.iterdir() if file.is_file()) if path.is_dir() else ()


def _with_parents(files: Iterable[Path]) -> set[Path]:
    """Return the files and their folders, whose times show that a file was added or removed.

    The current folder is left out: a run may have written there.
    """
    absolute = [file.absolute() for file in files]
    return {*absolute, *(file.parent for file in absolute)} - {Path.cwd()}


def _unchanged(files: dict[str, Any]) -> bool:
    return all(file_status(Path(name)) == status for name, status in files.items())


def _is_settled(statuses: Iterable[dict[str, int]]) -> bool:
    """Return whether no file is so new that a change within one clock tick would be missed."""
    newest = max((max(s["mtime_ns"], s["ctime_ns"]) for s in statuses), default=0)
    return time.time_ns() - newest > CLOCK_TICK_NS


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_text(text)
    os.replace(part, file)
