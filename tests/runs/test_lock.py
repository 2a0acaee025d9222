"""One process at a time holds a run; another takes it over once the owner is dead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unipeft_run.runs import lock as locks
from unipeft_run.runs.lock import LockLost, Owner, RunLock, RunningElsewhere, is_running, owner_of

HOLD = """
import sys, time
from pathlib import Path
from unipeft_run.runs.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
RACE = """
import os, sys, time
from pathlib import Path
from unipeft_run.runs.lock import RunningElsewhere, RunLock
folder, end = Path(sys.argv[1]), float(sys.argv[2])
won = 0
while time.time() < end:
    try:
        with RunLock(folder):
            descriptor = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)
            os.close(descriptor)
            won += 1
            if os.getpid() % 2 and won % 5 == 0:
                os.unlink(folder / "inside")
                os.kill(os.getpid(), 9)
            os.unlink(folder / "inside")
    except RunningElsewhere:
        pass
print(won)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )


def forge_lock(folder: Path, **changed: Any) -> Owner:
    """Write the lock of an owner that does not exist."""
    with RunLock(folder):
        here = owner_of(folder)
        assert here is not None
    owner = replace(here, **changed)
    (folder / ".lock").mkdir(parents=True)
    (folder / ".lock" / owner.name).touch()
    return owner


def test_acquire_and_release(tmp_path: Path) -> None:
    folder = tmp_path / "task" / "method" / "id"
    with RunLock(folder) as lock:
        assert is_running(folder)
        lock.check()
        with pytest.raises(RunningElsewhere, match=rf"is being run by process {os.getpid()} on "):
            RunLock(folder).__enter__()
    assert list(folder.iterdir()) == []
    with RunLock(folder):
        assert is_running(folder)


def test_a_living_process_keeps_the_lock_and_a_killed_one_loses_it(tmp_path: Path) -> None:
    with start(HOLD, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunningElsewhere, match=f"process {process.pid} "):
            RunLock(tmp_path).__enter__()
        process.kill()
        while is_running(tmp_path):  # a zombie counts as dead
            time.sleep(0.01)
        with RunLock(tmp_path):
            owner = owner_of(tmp_path)
            assert owner is not None and owner.pid == os.getpid()


def test_a_reused_pid_is_another_process(tmp_path: Path) -> None:
    forge_lock(tmp_path, started=1)
    assert not is_running(tmp_path)
    with RunLock(tmp_path):
        pass


def test_an_owner_on_another_host_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    owner = forge_lock(tmp_path, pid_scope="0" * 8, host="node/7", pid=1)
    with pytest.raises(RunningElsewhere, match="process 1 on node/7"):
        RunLock(tmp_path).__enter__()
    old = time.time() - 2 * locks.STALE_SECONDS
    os.utime(tmp_path / ".lock" / owner.name, (old, old))
    assert not is_running(tmp_path)
    with RunLock(tmp_path):
        assert is_running(tmp_path)


def test_the_heartbeat_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    with RunLock(tmp_path):
        owner = owner_of(tmp_path)
        assert owner is not None
        file = tmp_path / ".lock" / owner.name
        os.utime(file, (1, 1))
        for _ in range(500):
            if file.stat().st_mtime > 1:
                break
            time.sleep(0.01)
        assert file.stat().st_mtime > 1


def test_an_owner_notices_that_it_lost_the_lock(tmp_path: Path) -> None:
    with RunLock(tmp_path) as lock:
        (file,) = (tmp_path / ".lock").iterdir()
        file.rename(file.with_name("1-1-00000000-00000000@elsewhere"))
        with pytest.raises(LockLost, match="taken over by another process"):
            lock.check()
    assert owner_of(tmp_path) is not None, "the new owner's lock is not removed"


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".lock.00000000").mkdir()
    (tmp_path / ".lock.11111111").mkdir()
    os.utime(tmp_path / ".lock.00000000", (1, 1))
    with RunLock(tmp_path):  # the other one may still be trying
        assert {path.name for path in tmp_path.iterdir()} == {".lock", ".lock.11111111"}


def test_two_processes_never_hold_the_lock_at_once(tmp_path: Path) -> None:
    """Six processes acquire, release and die for a while; only one at a time creates `inside`."""
    end = time.time() + 4
    processes = [start(RACE, tmp_path, end) for _ in range(6)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [err for _, err in results if err] == []
    wins = [int(out) if out else 5 for out, _ in results]
    assert sum(wins) > 6, wins


def test_unfinished_files_are_removed_when_the_lock_was_released(tmp_path: Path) -> None:
    part = tmp_path / "checkpoints" / ".last.0123abcd.part"
    part.mkdir(parents=True)
    (part / "tensors.safetensors").touch()
    (tmp_path / ".status.json.0123abcd.part").touch()
    with RunLock(tmp_path):
        left = [path.name for path in tmp_path.rglob("*.part")]
    assert left == []


@pytest.mark.parametrize("entry", ["stray", ".nfs000000000001", "1-1@host", "9" * 200 + "-1@h"])
def test_stray_entries_do_not_block_the_lock(tmp_path: Path, entry: str) -> None:
    (tmp_path / ".lock").mkdir()
    (tmp_path / ".lock" / entry).write_text("x")
    (tmp_path / ".lock" / "folder" / "below").mkdir(parents=True)
    with RunLock(tmp_path):
        assert is_running(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_stray_entries_do_not_cost_a_living_owner_the_lock(tmp_path: Path) -> None:
    with RunLock(tmp_path) as lock:
        (tmp_path / ".lock" / "0-stray").touch()
        with pytest.raises(RunningElsewhere, match=f"process {os.getpid()} on "):
            RunLock(tmp_path).__enter__()
        lock.check()


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo])
def test_a_lock_that_is_not_a_folder_does_not_block(tmp_path: Path, make: Any) -> None:
    make(tmp_path / ".lock")
    assert not is_running(tmp_path)
    with RunLock(tmp_path):
        assert is_running(tmp_path)


def test_a_heartbeat_in_the_future_is_stale(tmp_path: Path) -> None:
    owner = forge_lock(tmp_path, pid_scope="0" * 8, host="node", pid=1)
    future = time.time() + 10 * locks.STALE_SECONDS
    os.utime(tmp_path / ".lock" / owner.name, (future, future))
    assert not is_running(tmp_path)
    with RunLock(tmp_path):
        assert is_running(tmp_path)


def test_the_message_says_what_blocks_and_for_how_long(tmp_path: Path) -> None:
    owner = forge_lock(tmp_path, pid_scope="0" * 8, host="no\x1b[2Jde", pid=77)
    recent = time.time() - 50
    os.utime(tmp_path / ".lock" / owner.name, (recent, recent))
    text = (
        r"by process 77 on no\\x1b\[2Jde \(last heartbeat 5\d s ago\); its lock is stale in \d\d s"
    )
    with pytest.raises(RunningElsewhere, match=text):
        RunLock(tmp_path).__enter__()
    with (
        RunLock(tmp_path / "other"),
        pytest.raises(RunningElsewhere, match="its lock is released when that process ends"),
    ):
        RunLock(tmp_path / "other").__enter__()


def test_several_dead_owners_leave_one_new_one(tmp_path: Path) -> None:
    forge_lock(tmp_path, started=1)
    (tmp_path / ".lock" / "1-1-00000000-00000000@elsewhere").touch()
    os.utime(tmp_path / ".lock" / "1-1-00000000-00000000@elsewhere", (1, 1))
    with RunLock(tmp_path):
        assert len(list((tmp_path / ".lock").iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
