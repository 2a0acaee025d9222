"""The lines that a grid prints while it runs: which cell begins, how it ended, the time left."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from unipeft_run.runs.outcome import Outcome
from unipeft_run.sweeps.table import format_metric, primary_metric

ANNOUNCED = "announced"  # the extension of a file with the state and the seconds of a cell
ELSEWHERE = ("skipped", "running elsewhere")  # states of cells that another process runs


@dataclass(frozen=True)
class Announcer:
    """Announces the cells of one round on stderr; plain data, so that workers can have a copy.

    `labels`: of all cells of the grid. `numbers`: which of them are in this round. `finished`:
    which cells of the grid had a finished run at the start. `workers`: how many cells run at a
    time. `folder`: where the workers write how their cells ended.
    """

    labels: Sequence[str]
    numbers: Sequence[int]
    finished: Collection[int]
    workers: int
    folder: Path

    @contextmanager
    def announce_begin(self, position: int) -> Iterator[None]:
        """Print that a cell begins; inside this context, mark its lines if others run beside it.

        `position`: of the cell in the round.
        """
        number = self.numbers[position]
        print(f"{self._name(position)} {self.labels[number]}", file=sys.stderr)
        with prefixed_stderr(f"[{number + 1}] ") if self.workers > 1 else nullcontext():
            yield

    def announce_end(self, position: int, outcome: Outcome) -> None:
        """Print how a cell ended, and the time left; nothing if its run was finished before."""
        self._record(self.numbers[position], outcome)
        if outcome["state"] == "skipped":  # the run has said so
            return
        parts = [
            f"{self._name(position)} {outcome['state']}",
            format_metric(outcome, primary_metric(outcome)),
            f"{outcome['seconds']:.0f} s",
            self._format_progress(),
        ]
        print("  ".join(part for part in parts if part), file=sys.stderr)

    def _name(self, position: int) -> str:
        return f"[{self.numbers[position] + 1}/{len(self.labels)}]"

    def _record(self, number: int, outcome: Outcome) -> None:
        """Write how a cell ended; a later round overwrites it."""
        if outcome["state"] == "lost" or number in self.finished:
            return
        part = self.folder / f"cell{number}.part"
        part.write_text(json.dumps([outcome["state"], outcome["seconds"]]))
        part.rename(part.with_suffix(f".{ANNOUNCED}"))

    def _format_progress(self) -> str:
        """Count the cells that this command has run, and estimate the time that the rest takes."""
        files = self.folder.glob(f"*.{ANNOUNCED}")
        ended: list[tuple[str, float]] = [tuple(json.loads(file.read_text())) for file in files]
        ran = [end for end in ended if end[0] not in ELSEWHERE]
        to_run = len(self.labels) - len(self.finished) - (len(ended) - len(ran))
        return f"({len(ran)} of {to_run} have run{self._format_left(to_run - len(ran), ran)})"

    def _format_left(self, left: int, ran: Sequence[tuple[str, float]]) -> str:
        seconds = [seconds for state, seconds in ran if state == "done"]
        if left <= 0 or not seconds:
            return ""
        estimate = left * sum(seconds) / len(seconds) / min(self.workers, left)
        return f", about {timedelta(seconds=round(estimate))} left"


_prefixed: _Prefixed | None = None  # one per process: a logging handler may keep it


@contextmanager
def prefixed_stderr(prefix: str) -> Iterator[None]:
    """Begin every line on stderr with `prefix` inside this context."""
    global _prefixed
    stream = sys.stderr
    if _prefixed is None or _prefixed.stream is not stream:
        _prefixed = _Prefixed(stream)
    sys.stderr = prefixed = _prefixed
    prefixed.prefix = prefix
    try:
        yield
    finally:
        prefixed.end_line()
        prefixed.prefix = ""
        sys.stderr = stream


class _Prefixed(io.TextIOBase):
    """Writes whole lines to `stream`. It is no terminal, so progress is written as plain lines."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.prefix, self.rest = stream, "", ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream below."""
        return str(self.stream.encoding)

    def fileno(self) -> int:
        """Return the file descriptor of the stream below."""
        return int(self.stream.fileno())

    def write(self, text: str) -> int:
        """Write the lines that `text` completes, each in one piece."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.stream.write(f"{self.prefix}{line}\n")
        return len(text)

    def flush(self) -> None:
        """Flush the complete lines."""
        if not self.stream.closed:
            self.stream.flush()

    def end_line(self) -> None:
        """Write an incomplete last line."""
        if self.rest:
            self.write("\n")
