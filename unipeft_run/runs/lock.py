"""One process a run: the lock in a run folder, which dies with its owner.

The lock is the folder `.lock` with one empty file in it, whose name says who holds it and whose
time of change is the owner's heartbeat. Only operations that are atomic on network disks too are
used: a folder renamed to `.lock` fails where that holds a file, and a dead owner's file can be
renamed to a new owner's name by one process only. Imports nothing heavy.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event, Thread
from urllib.parse import quote, unquote

from unipeft_run.runs.folder import remove

BEAT_SECONDS, STALE_SECONDS = 10.0, 120.0
ATTEMPTS = 20  # others may take and free the lock between two looks of ours
OWNER = re.compile(r"(\d+)-(\d+)-([0-9a-f]{8})-([0-9a-f]{8})@(.+)")


class Elsewhere(Exception):
    """Another process has this run in its hands; the text says which."""


class LockLost(RuntimeError):
    """Another process took this one for dead, and has the run now."""


@dataclass(frozen=True)
class Owner:
    """A process: its number and start, where that number means something, and its host's name.

    `heartbeat`: seconds since 1970, by the clock of the disk.
    """

    pid: int
    started: int
    place: str
    token: str
    host: str
    heartbeat: float = 0.0

    @property
    def name(self) -> str:
        """The name of the file that stands for this owner."""
        return f"{self.pid}-{self.started}-{self.place}-{self.token}@{quote(self.host, safe='')}"

    def alive(self, now: float) -> bool:
        """Whether it still runs: looked up where its number is known here, else by heartbeat."""
        if self.place == _place():
            return _started(self.pid) == self.started
        return now - self.heartbeat < STALE_SECONDS


def owner_of(folder: Path) -> Owner | None:
    """Who holds the run in `folder`, alive or not; only reads."""
    try:
        files = [(entry.name, entry.stat().st_mtime) for entry in os.scandir(folder / ".lock")]
    except OSError:
        return None
    for name, heartbeat in files:
        if match := OWNER.fullmatch(name):
            pid, started, place, token, host = match.groups()
            return Owner(int(pid), int(started), place, token, unquote(host), heartbeat)
    return None


def is_running(folder: Path) -> bool:
    """Whether a living process holds the run in `folder`; only reads."""
    owner = owner_of(folder)
    return owner is not None and owner.alive(time.time())


class RunLock:
    """While entered, the run in `folder` is this process's. Raises `Elsewhere` on entering."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, folder / ".lock"
        pid = os.getpid()
        token = secrets.token_hex(4)
        self._owner = Owner(pid, _started(pid) or 0, _place(), token, socket.gethostname())
        self._mine = self._lock / self._owner.name
        self._aside = folder / f".lock.{token}"
        self._done = Event()
        self._thread = Thread(target=self._beat, daemon=True, name="heartbeat")

    def __enter__(self) -> RunLock:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._take()
        self._sweep()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._mine.unlink(missing_ok=True)
        with suppress(OSError):  # the next owner may be in it already
            self._lock.rmdir()

    def check(self) -> None:
        """Raise `LockLost` if the lock is another's now (this process was stopped for long)."""
        if not self._mine.exists():
            raise LockLost(f"{self._folder} was taken over by another process; this one leaves it")

    def _take(self) -> None:
        for _ in range(ATTEMPTS):
            if self._created():
                return
            owner = owner_of(self._folder)
            if owner is None:  # freed just now
                continue
            now = self._now()
            if owner.alive(now):
                raise Elsewhere(_sentence(self._folder, owner, now))
            if self._taken_over(owner):
                return
        raise Elsewhere(f"{self._folder} is being taken up by other processes; try again")

    def _created(self) -> bool:
        """Rename a folder with our file in it to the lock: fails where another's file is."""
        try:
            self._aside.mkdir()
            (self._aside / self._owner.name).touch()
            self._aside.rename(self._lock)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        finally:
            remove(self._aside)
        return self._mine.exists()

    def _taken_over(self, dead: Owner) -> bool:
        """Give the dead owner's file our name: works for one process only."""
        held = self._lock / dead.name
        try:
            os.utime(held)  # before, so that nobody ever sees the new name with an old heartbeat
            held.rename(self._mine)
        except FileNotFoundError:
            pass  # another was faster; or, on a network disk, our own rename was sent twice
        return self._mine.exists()

    def _sweep(self) -> None:
        """Remove what processes left that were killed while they tried."""
        now = self._mine.stat().st_mtime
        for left in self._folder.glob(".lock.*"):
            with suppress(FileNotFoundError):
                if now - left.stat().st_mtime > STALE_SECONDS:
                    remove(left)

    def _now(self) -> float:
        """The time by the clock of the disk, which need not be ours."""
        self._aside.mkdir()
        try:
            return self._aside.stat().st_mtime
        finally:
            remove(self._aside)

    def _beat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            try:
                os.utime(self._mine)
            except FileNotFoundError:
                return  # `check` says so
            except OSError:
                continue  # the disk may come back before anyone thinks us dead


def _sentence(folder: Path, owner: Owner, now: float) -> str:
    ago = max(0, round(now - owner.heartbeat))
    who = f"process {owner.pid} on {owner.host}"
    return f"{folder} is being run by {who} (last sign of life {ago} s ago); left to it"


@cache
def _place() -> str:
    """Where a process number means the same process: this host, since its start, in this space."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # both are Linux's
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _started(pid: int) -> int | None:
    """When process `pid` began, in ticks since the host's start; None if it is no more.

    0 for a living process where the system does not say (no /proc).
    """
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        state, *fields = stat.rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0
