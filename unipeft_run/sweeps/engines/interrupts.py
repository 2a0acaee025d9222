"""Interrupt a pool of workers: each saves its cell and stops, and then the command ends.

A pool kills its workers if an exception ends the command or a signal ends an idle worker. Workers
therefore start with SIGINT and SIGTERM blocked; a file tells them to stop, once.
"""

from __future__ import annotations

import _thread
import signal
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from threading import Event, Thread, current_thread, main_thread
from types import FrameType

from unipeft_run.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_SECONDS = 0.2
CAN_HOLD = hasattr(signal, "sigtimedwait")  # not on macOS


@contextmanager
def hold_signals(stop: Path) -> Iterator[None]:
    """Write the file `stop` on a signal, and raise `Interrupted` when the context ends.

    A second Ctrl-C raises KeyboardInterrupt at once. Processes that start in this context have the
    signals blocked.
    """
    if current_thread() is not main_thread():
        yield
        return
    handlers = {signum: signal.getsignal(signum) or signal.SIG_DFL for signum in SIGNALS}
    # a shell's background job ignores Ctrl-C
    handlers = {number: old for number, old in handlers.items() if old is not signal.SIG_IGN}
    held, ended = _Held(stop), Event()
    watcher = Thread(target=held.watch, args=(handlers, ended), daemon=True, name="signals")
    for signum in handlers:
        signal.signal(signum, held.handle)
    before = block_signals(handlers)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if held.signum and not held.is_repeated:
            raise Interrupted(held.signum)


class _Held:
    """The signals of the command since its workers started."""

    def __init__(self, stop: Path) -> None:
        self._stop, self.signum, self.is_repeated = stop, 0, False

    def watch(self, signals: Collection[int], ended: Event) -> None:
        """Receive signals, which the main thread blocks, until the event `ended`."""
        while not ended.is_set():
            if found := signal.sigtimedwait(signals, POLL_SECONDS):
                self._receive(found.si_signo)

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal that another thread received, or a repeated one."""
        if self.is_repeated:
            raise KeyboardInterrupt
        self._receive(signum)

    def _receive(self, signum: int) -> None:
        if self.signum == 0:
            self.signum = signum
            print("stopping; Ctrl-C again ends at once", file=sys.stderr)
            part = self._stop.with_suffix(".part")
            part.write_text(str(int(signum)))
            part.rename(self._stop)
        elif signum == signal.SIGINT:
            self.is_repeated = True
            _thread.interrupt_main()


@contextmanager
def interrupt_on(stop: Path) -> Iterator[None]:
    """Handle in this process the signal that the file `stop` names, once the file exists."""
    ended = Event()

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            if stop.exists():
                _thread.interrupt_main(signal.Signals(int(stop.read_text())))
                return

    watcher = Thread(target=watch, daemon=True, name="stop")
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def block_signals(signals: Collection[int] = SIGNALS) -> set[int]:
    """Block signals in this thread and in what it starts; return those blocked before."""
    resource_tracker.ensure_running()  # Python's starts by itself later, and unblocks them
    return signal.pthread_sigmask(signal.SIG_BLOCK, signals)


def unblock_signals() -> None:
    """Unblock the signals in a process that a worker has started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
