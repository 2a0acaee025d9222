"""Content hashes of files and folders: has this data, or this model folder, changed?

Hashes are remembered in the cache folder, so a file that did not change costs one `stat`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from unipeft_run.data.cache import cache_root
from unipeft_run.errors import UserError

# A file changed twice within one tick of the clock keeps its times: do not remember newer files.
CLOCK_TICK_NS = 20_000_000


def fingerprint(path: str | Path) -> str:
    """Return the sha256 of a file's content, or of a folder's file names and contents.

    Raises `UserError` if `path` cannot be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return combine({name: _file_hash(file) for name, file in _files_below(path)})
        return _file_hash(path)
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be read: {error.strerror}") from error


def fingerprint_files(files: Iterable[Path]) -> str:
    """Return one hash of `files` and their names: a single file's own hash, or that of a list."""
    hashes = {file.name: fingerprint(file) for file in files}
    return next(iter(hashes.values())) if len(hashes) == 1 else combine(hashes)


def combine(hashes: Mapping[str, str]) -> str:
    """Return one sha256 of named hashes, whatever their order."""
    lines = [json.dumps([name, hashes[name]]) for name in sorted(hashes)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield relative name and path of every regular file; links are followed, loops once."""
    seen = set()
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for file in (Path(parent, name) for name in names):
            if file.is_file():
                yield file.relative_to(folder).as_posix(), file


def _raise(error: OSError) -> None:
    raise error


def _file_hash(file: Path) -> str:
    status = _status(file)
    entry = _entry(file)
    if known := _read_entry(entry, status):
        return known
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    settled = time.time_ns() - max(status["mtime_ns"], status["ctime_ns"]) > CLOCK_TICK_NS
    if settled and _status(file) == status:
        with suppress(OSError):  # a full or read-only cache: hash again next time
            _write_entry(entry, _sealed({**status, "sha256": digest}))
    return digest


def _status(file: Path) -> dict[str, int]:
    """Return what changes when the content does; ctime cannot be set back, unlike mtime."""
    status = file.stat()
    names = "size", "mtime_ns", "ctime_ns", "ino", "dev"
    return {name: getattr(status, f"st_{name}") for name in names}


def _entry(file: Path) -> Path:
    name = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:32]
    return cache_root() / "fingerprints" / f"{name}.json"


def _read_entry(entry: Path, status: Mapping[str, int]) -> str | None:
    try:
        known = json.loads(entry.read_bytes())
        digest = str(known["sha256"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return digest if known == _sealed({**status, "sha256": digest}) else None


def _sealed(content: dict[str, int | str]) -> dict[str, int | str]:
    """Return `content` with a checksum, so that a damaged entry is ignored."""
    text = json.dumps(content, sort_keys=True)
    return {**content, "check": hashlib.sha256(text.encode()).hexdigest()[:16]}


def _write_entry(entry: Path, content: Mapping[str, int | str]) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".", dir=entry.parent)
    try:
        with os.fdopen(descriptor, "w") as out:
            json.dump(content, out)
        os.replace(name, entry)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
