"""What stops a run from outside, as one sentence that says what to do. Imports nothing heavy."""

from __future__ import annotations

import errno

from unipeft_run.errors import UserError
from unipeft_run.runs.lock import LockLost

RESUMES = "what is whole is kept, and the same command goes on from there"
LESS_MEMORY = (
    "a smaller recipe.batch_size (or recipe.max_tokens) with a larger recipe.accumulation needs "
    "less, but is another run, with other results"
)
FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def sentence(problem: BaseException) -> str | None:
    """One sentence for a failure that is none of the code's; None for any other."""
    if isinstance(problem, UserError | LockLost):
        return str(problem)
    if _is_out_of_memory(problem):
        return f"out of memory; {LESS_MEMORY}. {_upper(RESUMES)}"
    if _is_lost_peer(problem):
        return f"another process of this run is gone; {RESUMES}"
    if not isinstance(problem, OSError):
        return None
    where = f" ({problem.filename})" if problem.filename else ""
    if problem.errno in FULL:
        return f"the disk is full{where}; make room: {RESUMES}"
    if problem.errno in CLOSED:
        return f"{problem.strerror}{where}; {RESUMES}"
    if problem.errno == errno.EIO:
        return f"the disk failed{where}: {problem.strerror}; {RESUMES}"
    return None


def described(problem: BaseException) -> str:
    """`sentence`, or the kind of exception and its text."""
    return sentence(problem) or f"{type(problem).__name__}: {problem}"


def _is_out_of_memory(problem: BaseException) -> bool:
    # torch names its own by class on a GPU, and on a CPU by text only
    named = isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(problem)


def _is_lost_peer(problem: BaseException) -> bool:
    # of gloo and of NCCL, in what torch raises for them
    text = str(problem) if isinstance(problem, RuntimeError) else ""
    return ("gloo" in text and "by peer" in text) or "remote process exited" in text


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
