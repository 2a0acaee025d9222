"""Build a folder in the cache atomically and with checksums, one process at a time."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unipeft_run.data.cache import cache_root
from unipeft_run.miniatures.sources.checksums import find_damage, record_checksums
from unipeft_run.miniatures.sources.progress import notify

# Part of a cached folder's name. Raise it when a rule for splitting or cleaning changes, so that
# data built by the old rule is not mistaken for the new.
RECIPE = "2"
STALE = 24 * 3600  # seconds after which a temporary folder belongs to no living process


@contextmanager
def cache_lock() -> Iterator[None]:
    """Let one process at a time fetch into this cache; several data sets share apt's folder.

    The system releases the lock however the process ends.
    """
    import fcntl

    cache_root().mkdir(parents=True, exist_ok=True)
    with (cache_root() / ".lock").open("w") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`, building it first if it is missing or damaged.

    `build` fills a temporary folder, which gets checksums and is renamed into place when complete.
    If two processes build at once, the first to finish wins and the other uses its result.
    """
    replace = folder.is_dir()
    if replace:
        if (damage := find_damage(folder)) is None:
            return folder
        notify(f"{folder}: {damage}; fetching it again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(folder.parent, f".{folder.name}-")
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (built := scratch / "built").mkdir()
        build(built)
        record_checksums(built)
        if replace:
            folder.rename(scratch / "damaged")
        _move(built, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _move(built: Path, folder: Path) -> None:
    try:
        built.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster
            raise


def remove_stale(folder: Path, prefix: str) -> None:
    """Delete the temporary folders with this prefix that killed processes left in `folder`."""
    for path in folder.glob(f"{prefix}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE:
                shutil.rmtree(path)
