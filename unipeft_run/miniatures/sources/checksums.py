"""Checksums of a cached folder: written when it is built, compared before it is used."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from unipeft_run.data.fingerprint import fingerprint

NAME = "checksums.json"


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_checksums(folder: Path, pattern: str = "**/*") -> None:
    """Write the checksums of the regular files in `folder` that match `pattern`."""
    files = [path for path in sorted(folder.glob(pattern)) if path.name != NAME]
    entries = {path.relative_to(folder).as_posix(): hash_file(path) for path in _regular(files)}
    (folder / NAME).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def find_damage(folder: Path, hash_file: Callable[[Path], str] = hash_file) -> str | None:
    """Return what differs from the recorded checksums; None if the folder is intact."""
    if not folder.is_dir():
        return "it does not exist"
    try:
        recorded = json.loads((folder / NAME).read_bytes())
        for name, expected in recorded.items():
            if not any(_regular([folder / name])):
                return f"{name} is missing"
            if hash_file(folder / name) != expected:
                return f"the checksum of {name} has changed"
    except FileNotFoundError:
        return f"{NAME} is missing"
    except (ValueError, AttributeError, RecursionError):
        return f"{NAME} is damaged"
    return None


def is_intact(folder: Path) -> bool:
    """Return whether the folder is intact; files with unchanged metadata are not read again."""
    return find_damage(folder, fingerprint) is None


def _regular(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        with suppress(OSError):
            if stat.S_ISREG(path.lstat().st_mode):
                yield path
