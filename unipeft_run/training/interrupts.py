"""SIGTERM and SIGINT during training: finish the update, write a checkpoint, then go."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.parallel import totals

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run; a checkpoint is written and the same command continues.

    Like `KeyboardInterrupt` no `Exception`, so that what handles failures lets it pass.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Interrupts:
    """While entered, the first signal is noted; a second one takes its usual course.

    Not with several processes: Ctrl-C reaches each of them, and whoever has started them sends it
    to each once more. Who does not go in time gets SIGKILL from there.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._at_once = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        self._handlers = {}
        self._hold()
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()

    def check(self, device: torch.device) -> None:
        """Raise `Interrupted` if a signal has come, in all processes of the run if to one."""
        asked = totals([self._received == signum for signum in SIGNALS], device)
        for signum, times in zip(SIGNALS, asked, strict=True):
            if times:
                if processes.count() > 1:
                    self._hold()  # what comes during the save asks for the same once more
                raise Interrupted(signum)

    def last_check(self, device: torch.device) -> None:
        """`check` for what has come until now; signals take their usual course from here on."""
        self._let_go()
        self.check(device)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal is answered where it comes: for long work that may be dropped.

        Not with several processes: the others would wait for this one.
        """
        self._at_once = processes.count() == 1
        try:
            self._answer()
            yield
        finally:
            self._at_once = False

    def _hold(self) -> None:
        # Python takes signal handlers from its main thread only; elsewhere the owner decides
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                self._handlers.setdefault(signum, signal.getsignal(signum) or signal.SIG_DFL)
                signal.signal(signum, self._note)

    def _let_go(self) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._received = signum
        if processes.count() == 1:
            self._let_go()
        self._answer()

    def _answer(self) -> None:
        if self._at_once and self._received is not None:
            raise Interrupted(self._received)
