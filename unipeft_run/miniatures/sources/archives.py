"""Read single files out of downloaded archives, in memory: nothing is extracted or run."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from unipeft_run.errors import UserError


def read_members(archive: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield (path in the archive, content) of the regular files whose path ends in a suffix."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for name in packed.namelist():
                if name.endswith(suffixes):
                    yield name, packed.read(name)
        return
    with tarfile.open(archive) as tar:
        for entry in tar:
            if entry.isfile() and entry.name.endswith(suffixes):
                stream = tar.extractfile(entry)
                assert stream is not None
                yield entry.name, stream.read()


def read_member(archive: Path, suffix: str) -> bytes:
    """Return the content of the only file whose path ends in `suffix`."""
    found = [content for _, content in read_members(archive, (suffix,))]
    if len(found) != 1:
        raise UserError(f"{archive.name} has {len(found)} files {suffix}; expected one")
    return found[0]
