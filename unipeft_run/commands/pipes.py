"""Broken pipes: `| head`, a pager that was left, a terminal that was closed."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


def ignore_broken_pipes() -> None:
    """Ignore broken pipes, so that training survives `| head` or a closed terminal.

    Lines are flushed as they are printed, so that results and progress keep their order in a log.
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
    if stream is None:  # closed before this process started
        return None
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Forgiving(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
        write_through=stream.write_through,
    )
