"""Explains failures with an outside cause in one sentence. Imports nothing heavy."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence

from unipeft_run.errors import UserError
from unipeft_run.runs.lock import LockLost
from unipeft_run.runs.printable import printable
from unipeft_run.user_code import describe_bug

RESUMES = "complete files are kept, and the same command resumes the run"
LESS_MEMORY = (
    "a smaller recipe.batch_size (or recipe.max_tokens) with a larger recipe.accumulation needs "
    "less, but makes it a different run, with different results"
)
FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def explain_failure(problem: BaseException) -> str | None:
    """Return one sentence for a failure with an outside cause; None for a bug."""
    if isinstance(problem, UserError | LockLost):
        return str(problem)
    if _is_out_of_memory(problem):
        return f"out of memory; {LESS_MEMORY}. {_capitalise(RESUMES)}"
    if _is_lost_peer(problem):
        return f"another process of this run is gone; {RESUMES}"
    if isinstance(problem, ValueError) and "Invalid log settings" in str(problem):
        return f"TORCH_LOGS={printable(os.environ.get('TORCH_LOGS'))}: torch knows no such log"
    if not isinstance(problem, OSError):
        return None
    where = f" ({printable(problem.filename)})" if problem.filename else ""
    if problem.errno in FULL:
        return f"the disk is full{where}; make room: {RESUMES}"
    if problem.errno in CLOSED:
        return f"{problem.strerror}{where}; {RESUMES}"
    if problem.errno == errno.EIO:
        return f"the disk failed{where}: {problem.strerror}; {RESUMES}"
    return None


def explain_interrupt(stop: BaseException, overrides: Sequence[str] = ()) -> str:
    """Return a message: what stopped a command that runs `overrides`, and how to continue."""
    cause = str(stop) or "interrupted"
    if any(re.fullmatch(r"\+*force=(true|True)", word) for word in overrides):
        return f"{cause}; run the same command without force=true to resume"
    return f"{cause}; run the same command to resume"


def describe_failure(problem: BaseException) -> str:
    """Return the sentence of `explain_failure`, or else the exception's class and text.

    These follow the line of the user's own code that raised it, if there is one.
    """
    named = f"{type(problem).__name__}: {problem}"
    return explain_failure(problem) or describe_bug(problem) or named


def _is_out_of_memory(problem: BaseException) -> bool:
    # torch raises its own class on a GPU, but a RuntimeError with this text on a CPU
    named = isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(problem)


def _is_lost_peer(problem: BaseException) -> bool:
    # the texts of torch's errors for gloo and NCCL
    text = str(problem) if isinstance(problem, RuntimeError) else ""
    return ("gloo" in text and "by peer" in text) or "remote process exited" in text


def _capitalise(text: str) -> str:
    return text[0].upper() + text[1:]
