"""Find the line of the user's own code at which an exception was raised. Imports nothing heavy."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

PACKAGE = Path(__file__).parent
STANDARD_LIBRARY = Path(os.__file__).parent
INSTALLED = {"site-packages", "dist-packages", "importlib"}


def describe_problem(problem: BaseException) -> str:
    """Describe an exception in one line, with the file and line in the user's code."""
    place = _find_syntax_error(problem)
    if isinstance(problem, SyntaxError) and place:
        return f"{type(problem).__name__}: {problem.msg} ({place})"
    frame = _find_frame(problem)
    where = f" ({_locate(frame.filename, frame.lineno)})" if frame else ""
    return f"{type(problem).__name__}: {problem}".partition("\n")[0] + where


def describe_bug(problem: BaseException) -> str | None:
    """Describe an exception after its innermost frame in the user's code; None if there is none."""
    if not (frame := _find_frame(problem)):
        return None
    place = _locate(frame.filename, frame.lineno)
    return f"{place}, in {frame.name}: {type(problem).__name__}: {problem}"


def _find_frame(problem: BaseException) -> traceback.FrameSummary | None:
    frames = traceback.extract_tb(problem.__traceback__)
    return next((frame for frame in reversed(frames) if _is_users(frame.filename)), None)


def _find_syntax_error(problem: BaseException) -> str:
    """Return file and line of a syntax error in the user's code; else an empty string."""
    if not isinstance(problem, SyntaxError) or not _is_users(problem.filename or "<unknown>"):
        return ""
    return _locate(str(problem.filename), problem.lineno)


def _is_users(filename: str) -> bool:
    """Return whether a file is the user's: neither ours, installed, nor the interpreter's."""
    path = Path(filename)
    if filename.startswith("<") or INSTALLED & set(path.parts):
        return False
    return not (path.is_relative_to(PACKAGE) or path.is_relative_to(STANDARD_LIBRARY))


def _locate(filename: str, line: int | None) -> str:
    """Format file and line; the file relative to the current folder if it is in there."""
    path = Path(filename)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}, line {line}"
