"""SIGTERM and SIGINT during training: finish the update, write a checkpoint, exit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from unipeft_run.errors import Interrupted
from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.parallel import all_reduce_sum

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupts:
    """A signal handler that records the first signal; a second one has its default effect.

    With several processes all signals are recorded: Ctrl-C reaches every process, and the launcher
    forwards it to each once more. The launcher kills processes that do not exit in time.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._immediate = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        self._handlers = {}
        self._install()
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def check(self, device: torch.device) -> None:
        """Raise `Interrupted` on all ranks if any of them has received a signal."""
        counts = all_reduce_sum([self._received == signum for signum in SIGNALS], device)
        for signum, count in zip(SIGNALS, counts, strict=True):
            if count:
                if processes.world_size() > 1:
                    self._install()  # a repeated signal must not cut the checkpoint short
                raise Interrupted(signum)

    def last_check(self, device: torch.device) -> None:
        """Restore the handlers, then raise `Interrupted` for a signal received before."""
        self._restore()
        self.check(device)

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Raise `Interrupted` as soon as a signal arrives: for long work that may be abandoned.

        No effect with several processes, where the others would wait for this one.
        """
        self._immediate = processes.world_size() == 1
        try:
            self._raise_if_immediate()
            yield
        finally:
            self._immediate = False

    def _install(self) -> None:
        # Python allows signal handlers in its main thread only.
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                handler = signal.getsignal(signum) or signal.SIG_DFL
                if handler is not signal.SIG_IGN:  # a shell's background job ignores Ctrl-C
                    self._handlers.setdefault(signum, handler)
                    signal.signal(signum, self._record)

    def _restore(self) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)

    def _record(self, signum: int, frame: FrameType | None) -> None:
        self._received = signum
        if processes.world_size() == 1:
            self._restore()
        self._raise_if_immediate()

    def _raise_if_immediate(self) -> None:
        if self._immediate and self._received is not None:
            raise Interrupted(self._received)
