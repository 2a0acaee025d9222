"""Where the numbers of a run go: a file (the truth), the terminal, Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]


class Tracker:
    """Hears what happens in a run, in this order. A tracker overrides what it cares for."""

    def start(self, config: Mapping[str, Any]) -> None:
        """The run begins, with its resolved configuration."""

    def begin(self, step: int, total: int, evaluated: int | None = None) -> None:
        """Training goes on after `step` of `total`: 0, or where a stopped run is taken up.

        `evaluated`: the last step whose evaluation counts; one after it is made again.
        """

    def tick(self, record: Record, step: int, next_evaluation: int | None) -> None:
        """An update was made; for what is shown live."""

    def log(self, record: Record, step: int) -> None:
        """Numbers to keep: every few updates, after an evaluation, at the end."""

    def finish(self, summary: Mapping[str, Any], state: str) -> None:
        """The run is over, in `state`, with its final metrics. Always called, also after errors."""


class Trackers(Tracker):
    """Several trackers as one."""

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
