"""A reader that has seen enough: `| head`, a pager that was left, a terminal that was closed."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


def outlive_readers() -> None:
    """From now on, what nobody reads any more is dropped; a training behind it goes on.

    Lines are written as they are printed: in a log, results stand in order with the progress.
    """
    if sys.stdout is sys.__stdout__:
        sys.stdout = _forgiving(sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _forgiving(sys.stderr)


class _Forgiving(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def _forgiving(stream: Any) -> Any:
    if stream is None:  # closed before we were started
        return None
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Forgiving(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
        write_through=stream.write_through,
    )
