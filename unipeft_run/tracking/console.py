"""Console tracker: a live progress bar on a terminal, a plain line every few seconds elsewhere."""

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
from unipeft_run.tracking.summary import format_speed

Advance = Callable[[int], None]


class Console(Tracker):
    """Shows training and evaluation on stderr.

    `every`: seconds between two plain lines if stderr is not a terminal.
    """

    def __init__(self, *, every: float = 10.0, console: rich.console.Console | None = None) -> None:
        self._console = console or rich.console.Console(stderr=True)
        self._every = every
        self._bar: _Bar | None = None
        self._training: TaskID | None = None
        self._pace = _Pace(0, 0, every)

    def begin(self, step: int, total: int, evaluated: int | None = None) -> None:
        """Start the training bar at `step`."""
        self._pace = _Pace(step, total, self._every)
        if self._console.is_terminal:
            self._bar = self._new_bar()
            self._training = self._bar.add_task("train", total=total, completed=step)
            self._bar.start()

    def tick(self, record: Record, step: int, next_evaluation: int | None) -> None:
        """Move the bar, or write a plain line if one is due."""
        if self._bar is not None and self._training is not None:
            self._bar.numbers = _format_update(record, next_evaluation)
            self._bar.update(self._training, completed=step)
        elif self._pace.is_due(step):
            self.say(f"{self._pace.describe(step)}  {_format_update(record, next_evaluation)}")

    def log(self, record: Record, step: int) -> None:
        """Write the result of an evaluation; the bar shows training metrics."""
        found = {key: value for key, value in record.items() if key.startswith("validation/")}
        if found:
            mark = "  (best so far)" if record.get("best_step") == step else ""
            self.say(f"step {step}  {_format_evaluation(found)}{mark}")

    def finish(self, summary: Mapping[str, Any], state: str) -> None:
        """Remove the bar and restore the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._training = None

    def say(self, line: str) -> None:
        """Write a line without breaking the bar."""
        # a terminal would break a long line in the middle of a number
        is_file = not self._console.is_terminal
        self._console.print(line, markup=False, highlight=False, soft_wrap=is_file)

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Advance]:
        """Show progress over `total` items, below the training bar if there is one.

        Yields a function to call with the number of items just finished.
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

        def advance(items: int) -> None:
            nonlocal done
            done += items
            if pace.is_due(done):
                self.say(f"{description}  {pace.describe(done)}")

        return advance

    def _new_bar(self) -> _Bar:
        return _Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=4,
            # otherwise rich would print stdout on the terminal even if it goes to a file
            redirect_stdout=sys.stdout.isatty(),
        )


class _Bar(Progress):
    """Progress bars with a line of metrics below, so that both fit a narrow terminal."""

    numbers = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.numbers:
            yield Text(self.numbers, no_wrap=True, overflow="ellipsis")


class _Pace:
    """Estimates the time left, and limits plain lines to one every `every` seconds."""

    def __init__(self, step: int, total: int, every: float) -> None:
        self._first, self._total, self._every = step, total, every
        self._began = self._last_line = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Return whether a line should be written now; if so, restart the interval."""
        now = time.monotonic()
        is_due = now - self._last_line >= self._every or step == self._total
        if is_due:
            self._last_line = now
        return is_due

    def describe(self, step: int) -> str:
        """Return, for example, `120/400  0:00:12 elapsed  0:00:28 left`."""
        elapsed = time.monotonic() - self._began
        left = elapsed / max(1, step - self._first) * (self._total - step)
        return f"{step}/{self._total}  {_clock(elapsed)} elapsed  {_clock(left)} left"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _format_update(record: Record, next_evaluation: int | None) -> str:
    text = f"loss {record['train/loss']:.4f}  lr {record['train/lr']:.2e}  {format_speed(record)}"
    return text if next_evaluation is None else f"{text}  next evaluation {next_evaluation}"


def _format_evaluation(record: Record) -> str:
    """Format metrics: losses with four decimals, percentages and seconds with two."""
    numbers = {
        key.removeprefix("validation/"): value
        for key, value in record.items()
        if isinstance(value, float)
    }
    parts = (f"{name} {value:.{4 if name == 'loss' else 2}f}" for name, value in numbers.items())
    return "validation  " + "  ".join(parts)
