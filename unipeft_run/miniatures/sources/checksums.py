"""Checksums of a cached folder: written when it is built, compared before every use.

A file whose size and modification time are those recorded is not read again, so that checking an
intact folder costs one `stat` per file.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

NAME = "checksums.json"
Entry = dict[str, str | int]


def record_checksums(folder: Path, pattern: str = "**/*") -> None:
    """Write the checksums of the regular files in `folder` that match `pattern`."""
    files = (path for path in sorted(folder.glob(pattern)) if path.name != NAME)
    _write(folder, {_name(folder, path): _entry(path) for path in _regular(files)})


def find_damage(folder: Path) -> str | None:
    """What differs from the recorded checksums; None if the folder is as it was built."""
    if not folder.is_dir():
        return "it does not exist"
    try:
        recorded = json.loads((folder / NAME).read_bytes())
        return _compare(folder, recorded)
    except FileNotFoundError:
        return f"{NAME} is missing"
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{NAME} is damaged"


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare(folder: Path, recorded: dict[str, Entry]) -> str | None:
    moved: dict[str, Entry] = {}
    for name, entry in recorded.items():
        path = folder / name
        if not any(_regular([path])):
            return f"{name} is missing"
        if (current := _stamp(path)) != {key: entry[key] for key in current}:
            if hash_file(path) != entry["sha256"]:
                return f"the checksum of {name} has changed"
            moved[name] = {**entry, **current}
    if moved:
        with suppress(OSError):  # a read-only cache: hash again next time
            _write(folder, {**recorded, **moved})
    return None


def _regular(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        with suppress(OSError):
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _entry(path: Path) -> Entry:
    return {"sha256": hash_file(path), **_stamp(path)}


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _write(folder: Path, entries: dict[str, Entry]) -> None:
    part = folder / f".{NAME}.{os.getpid()}"
    try:
        part.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        part.replace(folder / NAME)
    finally:
        part.unlink(missing_ok=True)
