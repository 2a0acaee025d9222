"""Trackers: where a run's records go. train.jsonl is the source of truth; the console, Weights &
Biases and TensorBoard are views of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

Record = Mapping[str, Any]
# called with a description and a total; yields a function that takes the items just finished
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def no_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show no progress."""
    del description, total
    yield lambda count: None


class Tracker:
    """Receives run events in this order; override the ones you need."""

    def start(self, config: Mapping[str, Any]) -> None:
        """Receive the resolved configuration when the run starts."""

    def begin(self, step: int, total: int, evaluated: int | None = None) -> None:
        """Receive the `step` from which training continues (0 unless resumed), of `total` updates.

        `evaluated`: the last step whose evaluation is kept; later ones are repeated.
        """

    def tick(self, record: Record, step: int, next_evaluation: int | None) -> None:
        """Receive the metrics of every update, for live display."""

    def log(self, record: Record, step: int) -> None:
        """Receive a record to keep: every few updates, after an evaluation, and at the end."""

    def finish(self, summary: Mapping[str, Any], state: str) -> None:
        """Receive the final metrics and state. Called even after an error."""


class Trackers(Tracker):
    """Forwards every event to several trackers."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def start(self, config: Mapping[str, Any]) -> None:
        for tracker in self._trackers:
            tracker.start(config)

    def begin(self, step: int, total: int, evaluated: int | None = None) -> None:
        for tracker in self._trackers:
            tracker.begin(step, total, evaluated)

    def tick(self, record: Record, step: int, next_evaluation: int | None) -> None:
        for tracker in self._trackers:
            tracker.tick(record, step, next_evaluation)

    def log(self, record: Record, step: int) -> None:
        for tracker in self._trackers:
            tracker.log(record, step)

    def finish(self, summary: Mapping[str, Any], state: str) -> None:
        for tracker in self._trackers:
            tracker.finish(summary, state)
