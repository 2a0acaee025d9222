"""Keep a command running when its output pipe breaks (`| head`, a closed pager or terminal)."""

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
        sys.stdout = _wrap(sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _wrap(sys.stderr)


class _PipeOrNull(io.FileIO):
    """A file that redirects itself to /dev/null once its pipe breaks."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(data)


def _wrap(stream: Any) -> Any:
    if stream is None:  # closed before this process started
        return None
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_PipeOrNull(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
        write_through=stream.write_through,
    )
