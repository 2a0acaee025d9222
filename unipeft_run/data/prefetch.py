"""Collate batches ahead of time in a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
END = object()  # marks the end of the items


class Prefetched(Generic[T]):
    """Iterates over `items` in a background thread that is at most `ahead` items ahead.

    An exception of `items` is raised in the consumer, after the items before it. The thread ends
    with the iterator: at its end, at an error, or when it is closed.
    """

    def __init__(self, items: Iterable[T], ahead: int) -> None:
        self.items, self.ahead = items, ahead

    def __iter__(self) -> Iterator[T]:
        ready: queue.Queue[Any] = queue.Queue(self.ahead)
        stopped = threading.Event()
        thread = threading.Thread(target=self._fill, args=(ready, stopped), daemon=True)
        thread.start()
        try:
            while (entry := ready.get()) is not END:
                if isinstance(entry, _Error):
                    raise entry.error
                yield entry
        finally:
            stopped.set()

    def _fill(self, ready: queue.Queue[Any], stopped: threading.Event) -> None:
        try:
            for item in self.items:
                if not _put(ready, item, stopped):
                    return
        except BaseException as error:  # raised again in the consumer
            _put(ready, _Error(error), stopped)
        else:
            _put(ready, END, stopped)


class _Error:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _put(ready: queue.Queue[Any], entry: Any, stopped: threading.Event) -> bool:
    """Put `entry` as soon as there is room; return False if the consumer stopped."""
    while not stopped.is_set():
        try:
            ready.put(entry, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
