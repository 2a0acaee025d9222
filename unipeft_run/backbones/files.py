"""Find and read the files of a model, in a local folder or on the hub. Imports nothing heavy."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unipeft_run.config.messages import shorten
from unipeft_run.errors import CannotLoad, UserError
from unipeft_run.hub import is_hub_reachable

MAX_JSON = 16 * 2**20  # bytes; an mBART tokenizer_config.json has a few thousand


def find_file(source: str, name: str, revision: str | None = None) -> Path | None:
    """Return the path of file `name` in `source`, a folder or hub id; None if there is none.

    If the hub is unreachable, a hub id is looked up in its cache.
    """
    if Path(source).is_dir():
        file = Path(source) / name
        return file if file.is_file() else None
    if not is_hub_reachable():
        return _find_cached(source, name, revision)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        return Path(hf_hub_download(source, name, revision=revision))
    except RemoteEntryNotFoundError:
        return None


def _find_cached(source: str, name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(source, "config.json"), str):
        raise UserError(
            f"cannot reach the model hub for {source}, and it is not in the local cache"
        )
    cached = try_to_load_from_cache(source, name, revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in `file`. Raises UserError if it holds anything else."""
    try:
        size = file.stat().st_size
        content = json.loads(file.read_bytes()) if size <= MAX_JSON else None
    except (OSError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else shorten(error, 120)
        raise UserError(f"{file} cannot be read: {reason}") from None
    if size > MAX_JSON:
        raise UserError(f"{file} cannot be read: larger than {MAX_JSON:,} bytes")
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged: not a JSON object")
    return content


@contextmanager
def convert_errors(source: str) -> Iterator[None]:
    """Convert any exception raised while a library reads `source` into a CannotLoad of one line."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # the libraries do not document their exceptions
        reason = str(error) or type(error).__name__
        raise CannotLoad(f"{source} cannot be loaded: {shorten(reason, 160)}") from error
