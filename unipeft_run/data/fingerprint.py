"""Content hashes of files and folders, to detect that data or a model folder has changed.

Hashes are stored in the cache folder, so an unchanged file costs one `stat`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from unipeft_run.data.cache import cache_root, write_entry
from unipeft_run.errors import UserError

# A file changed twice within one clock tick keeps its times, so newer files are not cached.
CLOCK_TICK_NS = 20_000_000
_observed: list[Path] | None = None  # the files hashed since `observe`


@contextmanager
def observe() -> Iterator[list[Path]]:
    """Collect the files that are hashed inside this context in the yielded list."""
    global _observed
    before, _observed = _observed, []
    try:
        yield _observed
    finally:
        _observed = before


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
    """Return the hash of a single file, or one hash of the names and contents of several.

    If two files have the same name, all are named by their paths below their common folder.
    """
    unique = list(dict.fromkeys(files))
    if len(unique) == 1:
        return fingerprint(unique[0])
    names = {file: file.name for file in unique}
    if len(set(names.values())) < len(unique):
        common = os.path.commonpath([file.absolute() for file in unique])
        names = {file: file.absolute().relative_to(common).as_posix() for file in unique}
    return combine({name: fingerprint(file) for file, name in names.items()})


def note(file: Path) -> None:
    """Tell `observe` that `file` was read, if not through this module."""
    if _observed is not None:
        _observed.append(file)


def fingerprint_many(files: Iterable[Path]) -> str:
    """Return one hash of the contents of many files, in the order of their paths.

    While none has changed, this costs one `stat` of each. Raises `OSError`.
    """
    unique = sorted(set(files))
    if _observed is not None:
        _observed.extend(unique)
    statuses = [(str(file), file_status(file)) for file in unique]
    name = hashlib.sha256(json.dumps(statuses).encode()).hexdigest()
    entry = cache_root() / "fingerprints" / f"{name[:32]}-many.json"
    if cached := _read_entry(entry, {"name": name}):
        return cached
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in unique]
    digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    newest = max((max(s["mtime_ns"], s["ctime_ns"]) for _, s in statuses), default=0)
    if time.time_ns() - newest > CLOCK_TICK_NS:
        with suppress(OSError):  # a full or read-only cache: hash again next time
            write_entry(entry, _with_checksum({"name": name, "sha256": digest}))
    return digest


def combine(hashes: Mapping[str, str]) -> str:
    """Combine named hashes into one sha256, independently of their order."""
    lines = [json.dumps([name, hashes[name]]) for name in sorted(hashes)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield relative name and path of every regular file; links are followed, each folder once."""
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
    note(file)
    status = file_status(file)
    entry = _entry(file)
    if cached := _read_entry(entry, status):
        return cached
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    settled = time.time_ns() - max(status["mtime_ns"], status["ctime_ns"]) > CLOCK_TICK_NS
    if settled and file_status(file) == status:
        with suppress(OSError):  # a full or read-only cache: hash again next time
            write_entry(entry, _with_checksum({**status, "sha256": digest}))
    return digest


def file_status(file: Path) -> dict[str, int]:
    """Return what changes along with the content; unlike mtime, ctime cannot be set back."""
    status = file.stat()
    names = "size", "mtime_ns", "ctime_ns", "ino", "dev"
    return {name: getattr(status, f"st_{name}") for name in names}


def _entry(file: Path) -> Path:
    name = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:32]
    return cache_root() / "fingerprints" / f"{name}.json"


def _read_entry(entry: Path, status: Mapping[str, int | str]) -> str | None:
    try:
        content = json.loads(entry.read_bytes())
        digest = str(content["sha256"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return digest if content == _with_checksum({**status, "sha256": digest}) else None


def _with_checksum(content: dict[str, int | str]) -> dict[str, int | str]:
    """Add a checksum to `content`, so that a damaged entry is detected and ignored."""
    text = json.dumps(content, sort_keys=True)
    return {**content, "check": hashlib.sha256(text.encode()).hexdigest()[:16]}
