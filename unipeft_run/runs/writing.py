"""Write files into a run folder: atomically, never through a symbolic link, only while owned.

Every file is written under a temporary name in the same folder, synced and renamed, so a file that
exists is complete, whenever the process or the machine stopped. A `Check` is called with the target
just before the rename; it raises if this process has lost the run or the target is a link.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unipeft_run.errors import UserError
from unipeft_run.runs.printable import printable

Check = Callable[[Path], None]
TEMPORARY = re.compile(r"\..+\.part")
APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def no_check(path: Path) -> None:
    """Allow every write, for folders that only this process writes to."""


def refuse_links(root: Path, path: Path) -> None:
    """Raise `UserError` if `path`, or a folder between `root` and it, is a symbolic link."""
    current = root
    for part in path.relative_to(root).parts:
        current = current / part
        if current.is_symlink():
            name = printable(current)
            raise UserError(f"{name} is a symbolic link; runs write to none: remove it")


def make_folder(path: Path) -> None:
    """Create the folder `path`, whose parent exists. Raises `UserError` if it is a file."""
    try:
        path.mkdir(exist_ok=True)
    except FileExistsError:
        raise UserError(f"{printable(path)} is not a folder; remove it") from None


def temporary_path(path: Path) -> Path:
    """Return an unused path in the same folder, which no other process chooses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


@contextmanager
def replacing(path: Path, check: Check = no_check) -> Iterator[Path]:
    """Yield a temporary path; rename the result to `path` in one step.

    A failure or an interrupt leaves `path` as it was. Raises `LockLost` for any failure after the
    run was lost.
    """
    check(path)
    temporary = temporary_path(path)
    try:
        yield temporary
        check(path)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            remove(temporary)  # on a full disk, makes room for status.json
        if isinstance(error, OSError):
            check(path)
            error.filename = error.filename or str(path)  # a failed write does not say where
        raise
    sync(path.parent)


def replace_file(path: Path, data: bytes, check: Check = no_check) -> None:
    """Write `data` to `path` in one step; the old content stays until the new one is on disk."""
    if path.is_dir():
        raise UserError(f"{printable(path)} is a folder where a file belongs; remove it")
    with replacing(path, check) as temporary:
        with temporary.open("xb") as file:
            file.write(data)
        sync(temporary)


def append_text(path: Path, text: str, check: Check = no_check) -> None:
    """Append `text` to `path`, and flush it to the operating system.

    The file is opened before the last check: a process that loses the run in between writes to a
    file that its successor has replaced (`renew_file`).
    """
    check(path)
    with open(os.open(path, APPENDING, 0o666), "ab") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UserError(f"{printable(path)} is not a regular file; remove it")
        check(path)
        file.write(text.encode("utf-8", "backslashreplace"))


def renew_file(path: Path) -> None:
    """Replace a regular file by its copy, so that writes through older descriptors are lost."""
    if path.is_symlink() or not path.is_file():
        return
    with replacing(path) as temporary:
        with path.open("rb") as source, temporary.open("xb") as target:
            shutil.copyfileobj(source, target)
        sync(temporary)


def remove_temporary(folder: Path) -> None:
    """Remove the unfinished writes of other processes in `folder`, without following links."""
    if folder.is_symlink():
        return
    with suppress(OSError):
        for name in os.listdir(folder):
            if TEMPORARY.fullmatch(name):
                remove(folder / name)


def sync(path: Path) -> None:
    """Fsync a file, or the entries of a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with its content; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
