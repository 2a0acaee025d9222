"""Batches that a background thread collates ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from unipeft_run.data.prefetch import Prefetched


def background_threads() -> int:
    return sum("_fill" in thread.name for thread in threading.enumerate())


def wait_for_end() -> None:
    deadline = time.monotonic() + 10
    while background_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not background_threads()


def test_items_keep_their_order_and_can_be_read_again() -> None:
    items = Prefetched(range(50), ahead=3)
    assert list(items) == list(range(50)) == list(items)
    wait_for_end()


def test_the_thread_is_at_most_a_few_items_ahead() -> None:
    drawn: list[int] = []

    def count() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    stream = iter(Prefetched(count(), ahead=4))
    assert next(stream) == 0
    time.sleep(0.3)
    assert len(drawn) <= 6  # the one read, four in the queue, one waiting for room
    stream.close()  # type: ignore[attr-defined]
    wait_for_end()


def test_an_error_arrives_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("no space left")

    stream = iter(Prefetched(broken(), ahead=8))
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(OSError, match="no space left"):
        next(stream)
    wait_for_end()
