"""How a run ended: plain data that crosses processes, and the exit code it makes."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from unipeft_run.config.messages import Illegal
from unipeft_run.errors import UserError
from unipeft_run.runs.failures import describe_failure, explain_failure

GOOD = ("done", "skipped", "equal")


class Outcome(TypedDict):
    """`state`: done, skipped (it was done already), equal (to another cell), illegal, refused
    (something named is not there), running elsewhere, diverged, failed, lost (a process of it was
    killed; a grid takes it up again). `error`: a sentence, or empty."""

    state: str
    error: str
    seconds: float
    metrics: dict[str, Any]


def attempt(run: Callable[[], Mapping[str, Any]]) -> Outcome:
    """Call `run`, which returns metrics with their `state`; its failures become an outcome.

    What is no failure (an interrupt, an exit) passes.
    """
    start, state, error = time.monotonic(), "done", ""
    metrics: dict[str, Any] = {}
    try:
        metrics = dict(run())
        state, error = str(metrics.get("state", "done")), str(metrics.get("error", ""))
    except UserError as refusal:
        state, error = "illegal" if isinstance(refusal, Illegal) else "refused", str(refusal)
    except Exception as failure:
        if explain_failure(failure) is None:
            traceback.print_exc(file=sys.stderr)
        state, error = "failed", describe_failure(failure)
    return Outcome(state=state, error=error, seconds=time.monotonic() - start, metrics=metrics)


def ended(state: str, error: str = "") -> Outcome:
    """The outcome of a cell that was never started."""
    return Outcome(state=state, error=error, seconds=0.0, metrics={})


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0: all is well; 1: something failed; 2: nothing could be run as it was written."""
    states = [outcome["state"] for outcome in outcomes]
    wrong = ("illegal", "refused")
    if states and all(state in wrong for state in states):
        return 2
    return int(any(state not in GOOD and state != "illegal" for state in states))
