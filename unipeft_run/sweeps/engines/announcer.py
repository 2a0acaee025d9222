"""The lines that a grid prints while it runs: which cell begins, how it ended, the time left."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.runs.outcome import Outcome
from unipeft_run.sweeps.table import format_metric, primary_metric

ENDED = "ended"  # the extension of a file with the outcome of a cell
NOT_RUN = (
    "skipped",
    "running elsewhere",
    "lost",
)  # states of cells that took no time, or run again


@dataclass(frozen=True)
class Announcer:
    """Announces the cells of one round on stderr; plain data, so that workers can have a copy.

    `labels`: of all cells of the grid. `numbers`: which of them are in this round. `unfinished`:
    how many cells of the grid had no finished run at the start. `workers`: how many run at a time.
    `folder`: where the workers write outcomes.
    """

    labels: Sequence[str]
    numbers: Sequence[int]
    unfinished: int
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
        if outcome["state"] == "skipped":  # the run has said so
            return
        ran = self._read_outcomes()
        parts = [
            f"{self._name(position)} {outcome['state']}",
            format_metric(outcome, primary_metric(outcome)),
            f"{outcome['seconds']:.0f} s",
            f"({len(ran)} of {max(self.unfinished, len(ran))} have run{self._format_left(ran)})",
        ]
        print("  ".join(part for part in parts if part), file=sys.stderr)

    def _name(self, position: int) -> str:
        return f"[{self.numbers[position] + 1}/{len(self.labels)}]"

    def _read_outcomes(self) -> list[Outcome]:
        """Return the outcomes of the cells that this command has run."""
        files = self.folder.glob(f"*.{ENDED}")
        outcomes: list[Outcome] = [json.loads(file.read_text()) for file in files]
        return [outcome for outcome in outcomes if outcome["state"] not in NOT_RUN]

    def _format_left(self, ran: Sequence[Outcome]) -> str:
        left = self.unfinished - len(ran)
        seconds = [outcome["seconds"] for outcome in ran if outcome["state"] == "done"]
        if left <= 0 or not seconds:
            return ""
        estimate = left * sum(seconds) / len(seconds) / min(self.workers, left)
        return f", about {timedelta(seconds=round(estimate))} left"


@contextmanager
def prefixed_stderr(prefix: str) -> Iterator[None]:
    """Begin every line on stderr with `prefix` inside this context."""
    ignore_broken_pipes()
    stream = sys.stderr
    sys.stderr = _Prefixed(stream, prefix)
    try:
        yield
    finally:
        sys.stderr.close()
        sys.stderr = stream


class _Prefixed(io.TextIOBase):
    """Writes whole lines to `stream`. It is no terminal, so progress is written as plain lines."""

    def __init__(self, stream: Any, prefix: str) -> None:
        self.stream, self.prefix, self.rest = stream, prefix, ""

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
        if not self.closed:
            self.stream.flush()

    def close(self) -> None:
        """Write an incomplete last line; the stream below stays open."""
        if self.rest:
            self.write("\n")
        super().close()
