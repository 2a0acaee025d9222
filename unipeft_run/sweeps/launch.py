"""Start the processes of one run on this machine, as torchrun does: `processes=2`."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.queues import SimpleQueue
from typing import cast

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from unipeft_run.config import PlannedRun
from unipeft_run.runs.failures import RESUMES
from unipeft_run.runs.folder import RunFolder
from unipeft_run.runs.lock import Elsewhere, LockLost, RunLock
from unipeft_run.runs.outcome import Outcome
from unipeft_run.training.distributed import processes
from unipeft_run.training.interrupts import SIGNALS, Interrupted

SECONDS_BETWEEN_LOOKS = 0.5
ENDS_ALL = ("failed", "refused", "illegal")
QUIET = ("torch.distributed.elastic", "torch.multiprocessing.spawn")
LONGEST = 2000  # of an error: what is put into a pipe must fit, as nobody reads meanwhile
TAKEN = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")  # by torch's launcher

Job = Callable[[PlannedRun], Outcome]
Notes = SimpleQueue[tuple[int, Outcome]]  # of those that failed, the first one first


def run_in_processes(planned: PlannedRun, job: Job) -> Outcome:
    """Run in as many processes as the configuration asks for; return the outcome of rank 0.

    Where one fails the others are ended, and its outcome is the run's; "lost" where one is
    killed. Raises `Interrupted` after a signal to this process or to any of them. `job`: what each
    does, at module level.
    """
    threads = max(1, (os.cpu_count() or 1) // planned.config.processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    settings = LaunchConfig(
        run_id="unipeft",
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=planned.config.processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=SECONDS_BETWEEN_LOOKS,
        start_method="spawn",
    )
    began, notes = time.monotonic(), multiprocessing.get_context("spawn").SimpleQueue()
    try:
        with _handlers_given_back(), _only_our_words():
            outcomes = elastic_launch(settings, one_of_them)(planned, job, notes)
    except SignalException as stop:  # the processes have got it too
        raise Interrupted(stop.sigval) from None
    except ChildFailedError as end:
        outcome = _how(end, planned.config.processes, notes)
        outcome["seconds"] = time.monotonic() - began
        if outcome["state"] in ("failed", "lost"):
            _write_down(planned, outcome["error"])
        return outcome
    return cast("Outcome", outcomes[0])


def one_of_them(planned: PlannedRun, job: Job, notes: Notes) -> Outcome:
    """What each process does. One that returns waits for all others; one that exits ends them."""
    try:
        outcome = job(planned)
    except KeyboardInterrupt as stop:
        # torch would take it for an end like any other, and wait for a value for ever
        sys.exit(128 + getattr(stop, "signum", signal.SIGINT))
    if outcome["state"] not in ENDS_ALL:
        return outcome
    notes.put((processes.rank(), {**outcome, "error": outcome["error"][:LONGEST]}))
    time.sleep(2 * SECONDS_BETWEEN_LOOKS)  # one that was killed, and is why we fail, is seen first
    sys.exit(1)


def _how(end: ChildFailedError, count: int, notes: Notes) -> Outcome:
    """The outcome of a run of which a process ended before its time. Raises `Interrupted`."""
    rank, failure = end.get_first_failure()
    code, who = failure.exitcode, f"process {rank + 1} of {count}"
    if code - 128 in SIGNALS:
        raise Interrupted(code - 128) from None
    if code < 0:
        memory = ", as by the kernel when memory is short" if -code == signal.SIGKILL else ""
        error = f"{who} ({failure.pid}) was killed by {failure.signal_name()}{memory}; {RESUMES}"
        return Outcome(state="lost", error=error, seconds=0.0, metrics={})
    noted = list(_all_of(notes))
    if rank in [number for number, _ in noted]:
        return noted[0][1]  # the others may have failed because of this one
    told = f": {failure.message['message']}" if isinstance(failure.message, dict) else ""
    error = f"{who} ({failure.pid}) ended with exit code {code}{told}"
    return Outcome(state="failed", error=error, seconds=0.0, metrics={})


def _all_of(notes: Notes) -> Iterator[tuple[int, Outcome]]:
    while not notes.empty():
        yield notes.get()


def _write_down(planned: PlannedRun, error: str) -> None:
    """Put the reason into the run folder: the leading process did not live to, or knew another."""
    path = planned.folder
    if not (path / "config.yaml").exists():
        return  # it ended before the run began
    with suppress(Elsewhere, LockLost, OSError), RunLock(path) as lock:
        if not (path / "metrics.json").exists():
            RunFolder(path, lock.check).mark("failed", error=error)


@contextmanager
def _handlers_given_back() -> Iterator[None]:
    """Torch's launcher takes signals for itself, and keeps them for what comes after it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in map(signal.Signals.__getitem__, TAKEN)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def _only_our_words() -> Iterator[None]:
    """How a run ended is said once, in one sentence."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(QUIET)]
    loggers = [logging.getLogger(name) for name in {*names, *QUIET}]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
