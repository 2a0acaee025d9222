"""How a run ended, as plain data that crosses processes, and the exit code it leads to."""

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
    """How one run or cell ended.

    `state`: "done"; "skipped" (done before); "equal" (to another cell); "illegal" (a point outside
    the design space); "refused" (another user error); "running elsewhere"; "diverged"; "failed";
    "interrupted" (with its grid); "lost" (one of its processes was killed; a grid reruns it).
    `error`: a sentence, or empty.
    """

    state: str
    error: str
    seconds: float
    metrics: dict[str, Any]


def capture_outcome(run: Callable[[], Mapping[str, Any]]) -> Outcome:
    """Call `run`, which returns metrics and its `state`; turn exceptions into an outcome.

    KeyboardInterrupt and SystemExit propagate.
    """
    start, state, error = time.monotonic(), "done", ""
    metrics: dict[str, Any] = {}
    try:
        metrics = dict(run())
        state, error = str(metrics.get("state", "done")), str(metrics.get("error", ""))
    except UserError as refusal:
        return refused_outcome(refusal)
    except Exception as failure:
        if explain_failure(failure) is None:
            traceback.print_exc(file=sys.stderr)
        state, error = "failed", describe_failure(failure)
    return Outcome(state=state, error=error, seconds=time.monotonic() - start, metrics=metrics)


def refused_outcome(refusal: UserError) -> Outcome:
    """Return the outcome of a wrong configuration: illegal, or refused."""
    return make_outcome("illegal" if isinstance(refusal, Illegal) else "refused", str(refusal))


def make_outcome(state: str, error: str = "") -> Outcome:
    """Return an outcome without metrics, for a run that was not called here."""
    return Outcome(state=state, error=error, seconds=0.0, metrics={})


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """Return 0 if all is well, 1 if something failed, 2 if nothing could run as written."""
    states = [outcome["state"] for outcome in outcomes]
    if states and all(state in ("illegal", "refused") for state in states):
        return 2
    return int(any(state not in GOOD and state != "illegal" for state in states))
