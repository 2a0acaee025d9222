"""The cache folder, shared by fetched data, encoded splits and file fingerprints."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unipeft_run.errors import UserError


def cache_root() -> Path:
    """Return `$UNIPEFT_CACHE`, which defaults to `~/.cache/unipeft`."""
    configured = os.environ.get("UNIPEFT_CACHE")
    return (
        Path(os.path.expanduser(configured)) if configured else Path.home() / ".cache" / "unipeft"
    )


@contextmanager
def writable_cache() -> Iterator[None]:
    """Convert an `OSError` raised while writing to the cache into a `UserError`."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
        raise UserError(
            f"cannot write to the cache folder {cache_root()}: {reason}\n"
            "Free some space, make it writable, or set UNIPEFT_CACHE to another folder."
        ) from error


def write_entry(entry: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file to the cache, complete or not at all. Raises `OSError`."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".", dir=entry.parent)
    try:
        with os.fdopen(descriptor, "w") as out:
            json.dump(content, out)
        os.replace(name, entry)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
