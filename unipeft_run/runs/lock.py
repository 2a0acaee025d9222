"""The run lock: one process per run, released when its owner dies.

The lock is the folder `.lock` with one empty file in it. The file's name identifies the owner and
its modification time is the owner's heartbeat. It relies only on operations that are atomic on
network disks too: renaming a folder to `.lock` fails if that holds a file, and only one process can
rename a dead owner's file to its own name. Imports nothing heavy.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import socket
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from urllib.parse import quote, unquote

from unipeft_run.runs.printable import printable
from unipeft_run.runs.writing import refuse_links, remove, remove_temporary, renew_file

BEAT_SECONDS, STALE_SECONDS = 10.0, 120.0
ATTEMPTS = 20  # others may acquire and release the lock between our attempts
MOST_ENTRIES = 100  # read from .lock, which should hold one
OWNER = re.compile(r"(\d{1,10})-(\d{1,20})-([0-9a-f]{8})-([0-9a-f]{8})@(.+)")


class RunningElsewhere(Exception):
    """Another process holds this run; the message says which, and until when."""


class LockLost(RuntimeError):
    """Another process considered this one dead and took over the run."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a run.

    `started`: in ticks since boot. `pid_scope`: where its PID is valid (see `_pid_scope`).
    `heartbeat`: seconds since 1970, by the clock of the disk.
    """

    pid: int
    started: int
    pid_scope: str
    token: str
    host: str
    heartbeat: float = 0.0

    @property
    def name(self) -> str:
        """The name of this owner's file in the lock."""
        return (
            f"{self.pid}-{self.started}-{self.pid_scope}-{self.token}@{quote(self.host, safe='')}"
        )

    @property
    def is_local(self) -> bool:
        """True if its PID is valid in this process, so that no heartbeat is needed."""
        return self.pid_scope == _pid_scope()

    def is_alive(self, now: float) -> bool:
        """Return whether it still runs: by its PID if local, else by its heartbeat.

        A heartbeat in the future counts as stale: the same clock should renew it every 10 s.
        """
        if self.is_local:
            return _start_time(self.pid) == self.started
        return abs(now - self.heartbeat) < STALE_SECONDS


def owner_of(folder: Path) -> Owner | None:
    """Return the process that holds the run in `folder`, alive or not; reads only."""
    return next(iter(_owners(folder / ".lock")), None)


def is_running(folder: Path) -> bool:
    """Return whether a living process holds the run in `folder`; reads only."""
    return any(owner.is_alive(time.time()) for owner in _owners(folder / ".lock"))


def sees_owner(folder: Path, owner: Owner) -> bool:
    """Return whether the lock of `folder`, as this machine sees it, belongs to `owner`."""
    return (folder / ".lock" / owner.name).exists()


def _owners(lock: Path) -> list[Owner]:
    owners = []
    for name, heartbeat in _entries(lock):
        if match := OWNER.fullmatch(name):
            pid, started, pid_scope, token, host = match.groups()
            owners.append(Owner(int(pid), int(started), pid_scope, token, unquote(host), heartbeat))
    return owners


def _entries(lock: Path) -> list[tuple[str, float]]:
    """Return the name and modification time of each entry of the folder `lock`."""
    try:
        with os.scandir(lock) as entries:
            found = [(e.name, e.stat(follow_symlinks=False)) for e in islice(entries, MOST_ENTRIES)]
    except OSError:
        return []
    return [(name, status.st_mtime) for name, status in found]


class RunLock:
    """Context manager that holds the run in `folder`. Entering may raise `RunningElsewhere`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, folder / ".lock"
        pid = os.getpid()
        token = secrets.token_hex(4)
        self._owner = Owner(pid, _start_time(pid) or 0, _pid_scope(), token, socket.gethostname())
        self._mine = self._lock / self._owner.name
        self._candidate = folder / f".lock.{token}"
        self._done = Event()
        self._thread = Thread(target=self._beat, daemon=True, name="heartbeat")

    def __enter__(self) -> RunLock:
        self._folder.mkdir(parents=True, exist_ok=True)
        refuse_links(self._folder, self._lock)
        self._acquire()
        self._remove_leftovers()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._mine.unlink(missing_ok=True)
        with suppress(OSError):  # the next owner may already hold it
            self._lock.rmdir()

    def check(self) -> None:
        """Raise `LockLost` if another process took over the run while this one was suspended."""
        try:
            os.close(os.open(self._mine, os.O_RDONLY))  # opened: makes a network disk revalidate
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
                raise
            name = printable(self._folder)
            raise LockLost(f"{name} was taken over by another process; this one stops") from None

    def _acquire(self) -> None:
        for _ in range(ATTEMPTS):
            if self._create():
                return
            self._remove_strays()
            owners, now = _owners(self._lock), self._now()
            if alive := [owner for owner in owners if owner.is_alive(now)]:
                raise RunningElsewhere(_describe_owner(self._folder, alive[0], now))
            if owners and self._take_over(owners):
                return
        held = ", ".join(printable(name) for name, _ in _entries(self._lock)[:3])
        what = f"its .lock holds {held}" if held else "other processes are acquiring it"
        raise RunningElsewhere(f"{printable(self._folder)} cannot be locked: {what}; try again")

    def _create(self) -> bool:
        """Rename a folder with our file in it to the lock; fails if another's file is there."""
        try:
            self._candidate.mkdir()
            (self._candidate / self._owner.name).touch()
            self._candidate.rename(self._lock)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        finally:
            remove(self._candidate)
        return self._mine.exists()

    def _remove_strays(self) -> None:
        """Remove entries that are not owner files: no run writes them, and they block the lock."""
        with suppress(OSError):
            if not stat.S_ISDIR(self._lock.lstat().st_mode):
                self._lock.unlink()
        for name, _ in _entries(self._lock):
            if not OWNER.fullmatch(name):
                with suppress(OSError):
                    remove(self._lock / name)

    def _take_over(self, dead: list[Owner]) -> bool:
        """Rename a dead owner's file to ours, which works for one process only.

        In case the dead owner was only suspended, make sure that it writes nothing: replace
        train.jsonl, which it may have open, by a copy (its unfinished files are removed too).
        """
        held = self._lock / dead[0].name
        try:
            os.utime(held)  # first: the new name must never have an old heartbeat
            held.rename(self._mine)
        except FileNotFoundError:
            pass  # another process was faster, or a network disk sent our rename twice
        if not self._mine.exists():
            return False
        for other in dead[1:]:
            (self._lock / other.name).unlink(missing_ok=True)
        renew_file(self._folder / "train.jsonl")
        return True

    def _remove_leftovers(self) -> None:
        """Remove unfinished files, and candidate folders of processes killed while acquiring."""
        for folder in (self._folder, self._folder / "predictions", self._folder / "checkpoints"):
            remove_temporary(folder)
        now = self._mine.stat().st_mtime
        for left in self._folder.glob(".lock.*"):
            with suppress(FileNotFoundError):
                if abs(now - left.lstat().st_mtime) > STALE_SECONDS:
                    remove(left)

    def _now(self) -> float:
        """Return the time by the clock of the disk, which need not be ours."""
        self._candidate.mkdir()
        try:
            return self._candidate.stat().st_mtime
        finally:
            remove(self._candidate)

    def _beat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            try:
                os.utime(self._mine)
            except FileNotFoundError:
                return  # `check` reports it
            except OSError:
                continue  # the disk may come back before the lock is stale


def _describe_owner(folder: Path, owner: Owner, now: float) -> str:
    ago = max(0, round(now - owner.heartbeat))
    who = f"process {owner.pid} on {printable(owner.host)}"
    left = max(0, round(owner.heartbeat + STALE_SECONDS - now))
    local = "is released when that process ends"
    end = local if owner.is_local else f"is stale in {left} s unless renewed"
    name = printable(folder)
    return f"{name} is being run by {who} (last heartbeat {ago} s ago); its lock {end}"


@cache
def _pid_scope() -> str:
    """Return an id of the scope in which PIDs are unique: this boot and this PID namespace."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # Linux only
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _start_time(pid: int) -> int | None:
    """Return when process `pid` started, in ticks since boot; None if it is gone.

    0 for a living process if the system does not say (no /proc).
    """
    if Path("/proc/self/stat").exists():
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        state, *fields = text.rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    return 0
