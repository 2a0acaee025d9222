"""Raise an exception on SIGTERM, as Python does on Ctrl-C, so that a run records it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from unipeft_run.errors import Interrupted


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raise `Interrupted` on SIGTERM, unless another handler is installed."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(signum)
