"""Training state on disk: safetensors and JSON only, complete or absent, verified when read.

A checkpoint is a folder with `tensors.safetensors`, `state.json` and `checksums.json` (sha256 of
the other two). It is written to a temporary folder and renamed. The checkpoint that it replaces is
kept as `<name>.previous`, permanently with `keep_previous`. The frozen backbone is never saved.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unipeft_run.errors import UserError
from unipeft_run.runs.printable import printable
from unipeft_run.runs.reading import open_regular, read_bytes
from unipeft_run.runs.writing import (
    Check,
    make_folder,
    no_check,
    remove,
    replacing,
    sync,
    temporary_path,
)

TENSORS, STATE, CHECKSUMS = "tensors.safetensors", "state.json", "checksums.json"

UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError)

log = logging.getLogger(__name__)


class DamagedCheckpoint(UserError):
    """A checkpoint that cannot be read, or whose content differs from its checksums."""


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors, and everything else as JSON."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save_checkpoint(
    path: Path, content: Checkpoint, *, keep_previous: bool, check: Check = no_check
) -> None:
    """Write the folder `path`; an interruption leaves the old or the new one complete.

    `check` is called before each step that changes the disk.
    """
    previous = previous_of(path)
    check(path)
    check(previous)
    make_folder(path.parent)
    with replacing(path, check) as temporary:
        _write(temporary, content)
        check(path)
        if path.exists():
            remove(previous)
            path.rename(previous)
    if not keep_previous:
        check(previous)
        remove(previous)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read the folder `path`; `DamagedCheckpoint` names the file whose content has changed."""
    try:
        sums = json.loads(read_bytes(path / CHECKSUMS))
        for name in (TENSORS, STATE):
            if sha256(path / name) != sums[name]:
                file = printable(path / name)
                raise DamagedCheckpoint(f"{file} is damaged: its checksum differs")
        return Checkpoint(load_file(path / TENSORS), json.loads((path / STATE).read_bytes()))
    except DamagedCheckpoint:
        raise
    except UNREADABLE as error:
        raise DamagedCheckpoint(f"{printable(path)} cannot be read: {error}") from error


def _write(folder: Path, content: Checkpoint) -> None:
    folder.mkdir()
    tensors = {name: tensor.detach().contiguous() for name, tensor in content.tensors.items()}
    save_tensors(tensors, folder / TENSORS)
    (folder / STATE).write_text(json.dumps(content.state), encoding="utf-8")
    sums = {name: sha256(folder / name) for name in (TENSORS, STATE)}
    (folder / CHECKSUMS).write_text(json.dumps(sums), encoding="utf-8")
    for name in (TENSORS, STATE, CHECKSUMS, "."):
        sync(folder / name)


def replace_tensors(tensors: dict[str, Tensor], path: Path, check: Check = no_check) -> None:
    """Write a safetensors file in one step; the old content stays until the new one is on disk."""
    with replacing(path, check) as temporary:
        folder = temporary_path(path)  # safetensors writes its own temporary file here
        folder.mkdir()
        try:
            save_tensors(tensors, folder / path.name)
            sync(folder / path.name)
            (folder / path.name).rename(temporary)
        finally:
            remove(folder)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a new safetensors file, with the permissions that the umask gives.

    Raises `OSError` for a full or broken disk, as other writes do.
    """
    path.touch(exist_ok=False)
    mode = path.stat().st_mode & 0o777
    try:
        save_file(tensors, path)  # as 0600, whatever the umask
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from error
    path.chmod(mode)


def sha256(path: Path) -> str:
    """Return the checksum of a file's content, 64 hex digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_newest(path: Path) -> Checkpoint | None:
    """Read the checkpoint at `path`, or the previous one if it is damaged; None without any."""
    found = [folder for folder in (path, previous_of(path)) if folder.exists()]
    for folder in found:
        try:
            return load_checkpoint(folder)
        except DamagedCheckpoint as error:
            log.warning("%s", error)
    if found:
        name = printable(path)
        raise DamagedCheckpoint(
            f"no undamaged checkpoint is left at {name}; start afresh (force=true)"
        )
    return None


def previous_of(path: Path) -> Path:
    """Return where the checkpoint that `path` replaced is kept."""
    return path.with_name(f"{path.name}.previous")


def merge_parts(parts: Mapping[str, Checkpoint]) -> Checkpoint:
    """Merge named checkpoints into one; `extract_part` is the inverse."""
    tensors = {
        f"{name}/{key}": t for name, part in parts.items() for key, t in part.tensors.items()
    }
    return Checkpoint(tensors, {name: part.state for name, part in parts.items()})


def extract_part(content: Checkpoint, name: str) -> Checkpoint:
    """Extract the checkpoint `name` from a merged one."""
    prefix = f"{name}/"
    tensors = {
        key.removeprefix(prefix): tensor
        for key, tensor in content.tensors.items()
        if key.startswith(prefix)
    }
    return Checkpoint(tensors, content.state[name])
