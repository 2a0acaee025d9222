"""Training state on disk: safetensors and JSON only, whole or not there, checked when read.

A checkpoint is a folder with `tensors.safetensors`, `state.json` and `checksums.json` (sha256 of
the other two). It is written aside and renamed; what it replaces stays as `<name>.previous` until
then, and afterwards where that is asked for. The frozen backbone is never in it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unipeft_run.errors import UserError
from unipeft_run.runs.folder import remove, sync

TENSORS, STATE, CHECKSUMS = "tensors.safetensors", "state.json", "checksums.json"

log = logging.getLogger(__name__)


class DamagedCheckpoint(UserError):
    """A checkpoint that is not what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: named tensors, and everything else as JSON."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save_checkpoint(path: Path, content: Checkpoint, *, keep_previous: bool) -> None:
    """Write the folder `path`; a stop at any moment leaves the old one or the new one whole."""
    aside = path.with_name(f".{path.name}.part")
    previous = previous_of(path)
    try:
        _write(aside, content)
    except OSError:
        remove(aside)  # on a full disk it is in the way of the status
        raise
    if path.exists():
        remove(previous)
        path.rename(previous)
    aside.rename(path)
    sync(path.parent)
    if not keep_previous:
        remove(previous)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read the folder `path`; `DamagedCheckpoint` names the file that is not as it was written."""
    try:
        sums = json.loads((path / CHECKSUMS).read_bytes())
        wrong = [name for name in (TENSORS, STATE) if sha256(path / name) != sums[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"{path} cannot be read: {error}") from error
    if wrong:
        raise DamagedCheckpoint(f"{path / wrong[0]} is damaged: its checksum is another")
    return Checkpoint(load_file(path / TENSORS), json.loads((path / STATE).read_bytes()))


def _write(folder: Path, content: Checkpoint) -> None:
    remove(folder)
    folder.mkdir(parents=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in content.tensors.items()}
    save_tensors(tensors, folder / TENSORS)
    (folder / STATE).write_text(json.dumps(content.state), encoding="utf-8")
    sums = {name: sha256(folder / name) for name in (TENSORS, STATE)}
    (folder / CHECKSUMS).write_text(json.dumps(sums), encoding="utf-8")
    for name in (TENSORS, STATE, CHECKSUMS, "."):
        sync(folder / name)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file; a disk that is full or broken is an `OSError`, as elsewhere."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        full = f"os error {errno.ENOSPC}" in str(error)
        number = errno.ENOSPC if full else errno.EIO
        raise OSError(number, str(error), str(path)) from error


def sha256(path: Path) -> str:
    """The checksum of a file's content, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_newest(path: Path) -> Checkpoint | None:
    """The checkpoint at `path`, or the one before it where that is damaged; None where none is."""
    there = [folder for folder in (path, previous_of(path)) if folder.exists()]
    for folder in there:
        try:
            return load_checkpoint(folder)
        except DamagedCheckpoint as error:
            log.warning("%s", error)
    if there:
        raise DamagedCheckpoint(f"no whole checkpoint is left at {path}; start afresh (force=true)")
    return None


def previous_of(path: Path) -> Path:
    """Where the checkpoint that `path` replaced is kept."""
    return path.with_name(f"{path.name}.previous")


def join(parts: Mapping[str, Checkpoint]) -> Checkpoint:
    """One checkpoint out of named parts."""
    tensors = {f"{part}/{n}": t for part, c in parts.items() for n, t in c.tensors.items()}
    return Checkpoint(tensors, {part: c.state for part, c in parts.items()})


def part(content: Checkpoint, name: str) -> Checkpoint:
    """Undo `join` for one part."""
    prefix = f"{name}/"
    tensors = {
        key.removeprefix(prefix): tensor
        for key, tensor in content.tensors.items()
        if key.startswith(prefix)
    }
    return Checkpoint(tensors, content.state[name])
