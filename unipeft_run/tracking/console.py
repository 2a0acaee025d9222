"""The terminal: a live progress bar, or a plain line now and then where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import rich.console
from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from unipeft_run.tracking import Record, Tracker

Advance = Callable[[int], None]


class Console(Tracker):
    """Shows training, and evaluation inside it, on stderr.

    `every`: seconds between two plain lines, where stderr is no terminal.
    """

    def __init__(self, *, every: float = 10.0, console: rich.console.Console | None = None) -> None:
        self._console = console or rich.console.Console(stderr=True)
        self._every = every
        self._bar: _Bar | None = None
        self._training: TaskID | None = None
        self._pace = _Pace(0, 0, every)

    def begin(self, step: int, total: int, evaluated: int | None = None) -> None:
        """Put up the bar of training, standing at `step`."""
        self._pace = _Pace(step, total, self._every)
        if self._console.is_terminal:
            self._bar = self._new_bar()
            self._training = self._bar.add_task("train", total=total, completed=step)
            self._bar.start()

    def tick(self, record: Record, step: int, next_evaluation: int | None) -> None:
        """Move the bar, or write a line if the last is some seconds old."""
        if self._bar is not None and self._training is not None:
            self._bar.numbers = _numbers(record, next_evaluation)
            self._bar.update(self._training, completed=step)
        elif self._pace.due(step):
            self.say(f"{self._pace.of(step)}  {_numbers(record, next_evaluation)}")

    def log(self, record: Record, step: int) -> None:
        """Write the result of an evaluation; the numbers of training are in the bar."""
        found = {key: value for key, value in record.items() if key.startswith("validation/")}
        if found:
            mark = "  (best so far)" if record.get("best_step") == step else ""
            self.say(f"step {step}  {_sentence(found)}{mark}")

    def finish(self, summary: Mapping[str, Any], state: str) -> None:
        """Take the bar down and leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._training = None

    def say(self, line: str) -> None:
        """Write a line without breaking the bar."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Advance]:
        """Show work of `total` parts, under the bar of training if there is one.

        Yields what to call with the number of parts just done.
        """
        if not self._console.is_terminal:
            yield self._plain_progress(description, total)
        elif self._bar is not None:
            task = self._bar.add_task(description, total=total)
            try:
                yield partial(self._bar.advance, task)
            finally:
                self._bar.remove_task(task)
        else:
            with self._new_bar() as bar:
                yield partial(bar.advance, bar.add_task(description, total=total))

    def _plain_progress(self, description: str, total: int) -> Advance:
        pace, done = _Pace(0, total, self._every), 0

        def advance(parts: int) -> None:
            nonlocal done
            done += parts
            if pace.due(done):
                self.say(f"{description}  {pace.of(done)}")

        return advance

    def _new_bar(self) -> _Bar:
        return _Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=4,
            # stdout that goes to a file must not be drawn on the terminal instead
            redirect_stdout=sys.stdout.isatty(),
        )


class _Bar(Progress):
    """Bars with a line of numbers below, so that both fit a narrow terminal."""

    numbers = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.numbers:
            yield Text(self.numbers, no_wrap=True, overflow="ellipsis")


class _Pace:
    """Position, time and time left, for plain lines at most every `every` seconds."""

    def __init__(self, step: int, total: int, every: float) -> None:
        self._first, self._total, self._every = step, total, every
        self._began = self._said = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether a line should be written now."""
        now = time.monotonic()
        due = now - self._said >= self._every or step == self._total
        if due:
            self._said = now
        return due

    def of(self, step: int) -> str:
        """Such as `120/400  0:00:12 elapsed  0:00:28 left`."""
        elapsed = time.monotonic() - self._began
        left = elapsed / max(1, step - self._first) * (self._total - step)
        return f"{step}/{self._total}  {_clock(elapsed)} elapsed  {_clock(left)} left"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _numbers(record: Record, next_evaluation: int | None) -> str:
    text = (
        f"loss {record['train/loss']:.4f}  lr {record['train/lr']:.2e}  "
        f"{record['train/tokens_per_second']:,.0f} tokens/s"
    )
    return text if next_evaluation is None else f"{text}  next evaluation {next_evaluation}"


def _sentence(record: Record) -> str:
    parts = [
        f"{key.removeprefix('validation/')} {value:.4f}"
        for key, value in record.items()
        if isinstance(value, float)
    ]
    return "validation  " + "  ".join(parts)
