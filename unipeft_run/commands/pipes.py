"""Keep a command running when its output goes nowhere (`| head`, `2>&-`, a closed terminal)."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any


def ignore_broken_pipes() -> None:
    """Ignore broken pipes, so that training survives `| head` or a closed terminal.

    A stream that was closed before this process started (`2>&-`) becomes /dev/null. Lines are
    flushed as they are printed, so that results and progress keep their order in a log.
    """
    if sys.stdout is sys.__stdout__:
        sys.stdout = _wrap(sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _wrap(sys.stderr)


class _PipeOrNull(io.FileIO):
    """A file that redirects itself to /dev/null once its pipe breaks or its terminal is gone."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(data)


def _wrap(stream: Any) -> Any:
    if stream is None:
        return _open_null()
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_PipeOrNull(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
        write_through=stream.write_through,
    )


def _open_null() -> Any:
    """Open /dev/null in place of a closed stream, also for child processes."""
    null = open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    os.set_inheritable(null.fileno(), True)  # it has the number of the closed stream
    return null
