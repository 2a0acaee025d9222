"""Start the processes of one run on this machine, with torchrun's launcher: `processes=2`."""

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

from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.config import PlannedRun
from unipeft_run.errors import Interrupted
from unipeft_run.runs.failures import RESUMES
from unipeft_run.runs.folder import RunFolder
from unipeft_run.runs.lock import LockLost, RunLock, RunningElsewhere
from unipeft_run.runs.outcome import Outcome, make_outcome
from unipeft_run.sweeps.engines.interrupts import unblock_signals
from unipeft_run.sweeps.engines.local import visible_gpus
from unipeft_run.sweeps.engines.worker import THREADS
from unipeft_run.training.distributed import processes
from unipeft_run.training.interrupts import SIGNALS

MONITOR_SECONDS = 0.5
PROCESSES_PER_CORE = 4  # more would not be faster
TERMINATING = ("failed", "refused", "illegal")  # outcomes of one process that end the run
QUIET_LOGGERS = ("torch.distributed.elastic", "torch.multiprocessing.spawn")
LONGEST_ERROR = 2000  # characters: it must fit into the pipe, which is read only at the end
LAUNCHER_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")  # torch's launcher handles these

Job = Callable[[PlannedRun], Outcome]
Failures = SimpleQueue[tuple[int, Outcome]]  # rank and outcome, the first failure first


def launch_processes(planned: PlannedRun, job: Job) -> Outcome:
    """Run in as many processes as the configuration asks for; return rank 0's outcome.

    If a process fails, the rest are terminated and its outcome is returned; "lost" if one is
    killed. Raises `Interrupted` after a signal to this process or to any of them. `job`: a
    module-level function that each process calls.
    """
    if problem := _describe_excess(planned.config.processes):
        return make_outcome("refused", problem)
    settings = LaunchConfig(
        run_id="unipeft",
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=planned.config.processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=MONITOR_SECONDS,
        start_method="spawn",
        signals_to_handle=",".join(_heeded_signals()),
    )
    began, failures = time.monotonic(), multiprocessing.get_context("spawn").SimpleQueue()
    try:
        with (
            _share_cores(planned.config.processes),
            _preserve_signal_handlers(),
            _silence_launcher(),
        ):
            outcomes = elastic_launch(settings, run_process)(planned, job, failures)
    except SignalException as stop:  # the processes have received it too
        raise Interrupted(stop.sigval) from None
    except ChildFailedError as error:
        outcome = _outcome_of(error, planned.config.processes, failures)
        outcome["seconds"] = time.monotonic() - began
        if outcome["state"] in ("failed", "lost"):
            _mark_failed(planned, outcome["error"])
        return outcome
    return cast("Outcome", outcomes[0])


def _heeded_signals() -> list[str]:
    """Return the launcher's signals without those that this process ignores, as under nohup."""
    return [
        name
        for name in LAUNCHER_SIGNALS
        if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN
    ]


def _describe_excess(count: int) -> str | None:
    """Return why this machine cannot run `count` processes; None if it can."""
    gpus, cores = len(visible_gpus()), os.cpu_count() or 1
    if gpus and count > gpus:
        return f"processes={count}: at most one per GPU, and {gpus} can be used here"
    most = PROCESSES_PER_CORE * cores
    if not gpus and count > most:
        return f"processes={count}: at most {most} on this machine, which has {cores} cores"
    return None


def run_process(planned: PlannedRun, job: Job, failures: Failures) -> Outcome:
    """Call `job` in one process of the run; exit if its outcome must terminate the others.

    A process that returns waits for the rest; one that exits terminates them.
    """
    ignore_broken_pipes()
    try:
        unblock_signals()
        outcome = job(planned)
    except KeyboardInterrupt as stop:
        # torch would take the exception for success, and wait forever for a result
        sys.exit(128 + getattr(stop, "signum", signal.SIGINT))
    if outcome["state"] not in TERMINATING:
        return outcome
    failures.put((processes.rank(), {**outcome, "error": outcome["error"][:LONGEST_ERROR]}))
    # if this process failed because another was killed, let the launcher see that one first
    time.sleep(2 * MONITOR_SECONDS)
    sys.exit(1)


def _outcome_of(error: ChildFailedError, count: int, failures: Failures) -> Outcome:
    """Return the outcome of a run one of whose processes exited. Raises `Interrupted`."""
    rank, failure = error.get_first_failure()
    code, who = failure.exitcode, f"process {rank + 1} of {count}"
    if code - 128 in SIGNALS:
        raise Interrupted(code - 128) from None
    if code < 0:
        memory = ", possibly by the kernel for lack of memory" if -code == signal.SIGKILL else ""
        killed = f"{who} ({failure.pid}) was killed by {failure.signal_name()}{memory}"
        return make_outcome("lost", f"{killed}; {RESUMES}")
    reported = list(_drain(failures))
    if rank in [number for number, _ in reported]:
        return reported[0][1]  # the others may have failed because of this one
    reason = f": {failure.message['message']}" if isinstance(failure.message, dict) else ""
    return make_outcome("failed", f"{who} ({failure.pid}) ended with exit code {code}{reason}")


def _drain(failures: Failures) -> Iterator[tuple[int, Outcome]]:
    while not failures.empty():
        yield failures.get()


def _mark_failed(planned: PlannedRun, error: str) -> None:
    """Write `error` to status.json: rank 0 may have died, or recorded another reason."""
    path = planned.folder
    if not (path / "config.yaml").exists():
        return  # the process exited before the run began
    with suppress(RunningElsewhere, LockLost, OSError), RunLock(path) as lock:
        if not (path / "metrics.json").exists():
            RunFolder(path, lock.check).mark("failed", error=error)


@contextmanager
def _share_cores(count: int) -> Iterator[None]:
    """Share the cores among `count` processes, unless the user has set $OMP_NUM_THREADS.

    The variable is removed afterwards: later cells of a grid must not inherit it.
    """
    if THREADS in os.environ:
        yield
        return
    os.environ[THREADS] = str(max(1, (os.cpu_count() or 1) // count))
    try:
        yield
    finally:
        del os.environ[THREADS]


@contextmanager
def _preserve_signal_handlers() -> Iterator[None]:
    """Restore the signal handlers that torch's launcher replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = map(signal.Signals.__getitem__, LAUNCHER_SIGNALS)
    before = {number: signal.getsignal(number) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def _silence_launcher() -> Iterator[None]:
    """Turn off the launcher's logs: the outcome has the reason in one sentence."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(QUIET_LOGGERS)]
    loggers = [logging.getLogger(name) for name in {*names, *QUIET_LOGGERS}]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
