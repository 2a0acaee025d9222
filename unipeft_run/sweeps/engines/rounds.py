"""Launch cells in rounds: rerun those whose worker was killed, a few times each."""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence

from unipeft_run.errors import UserError
from unipeft_run.runs.lock import STALE_SECONDS
from unipeft_run.runs.outcome import Outcome, make_outcome
from unipeft_run.sweeps.engines.worker import WorkerLost

Cell = list[str]
Launch = Callable[[list[Cell]], list[Outcome | WorkerLost]]
MAX_LOSSES = 3  # of one cell's workers, after which the cell has failed


def launch_in_rounds(
    launch: Launch, cells: Sequence[Cell], *, shared_fate: bool = False
) -> list[Outcome]:
    """Return an outcome for each of `cells`, even if its worker is killed.

    The next round reruns such a cell, which resumes from its checkpoint. With `shared_fate`, one
    killed worker terminates all workers. Cells that were running then come after the rest, and one
    by one in the last round, so that a cell that kills its worker affects no other.
    """
    outcomes: dict[int, Outcome] = {}
    losses: Counter[int] = Counter()
    while waiting := [number for number in range(len(cells)) if number not in outcomes]:
        together = [n for n in waiting if not (shared_fate and losses[n] == MAX_LOSSES - 1)]
        round_ = sorted(together, key=losses.__getitem__) or waiting[:1]
        try:
            launched = map(_unwrap_lost, launch([cells[n] for n in round_]))
            results = dict(zip(round_, launched, strict=True))
        except UserError:
            raise
        except Exception as failure:
            traceback.print_exc(file=sys.stderr)
            error = f"the launcher failed: {type(failure).__name__}: {failure}".partition("\n")[0]
            return [outcomes.get(n) or make_outcome("failed", error) for n in range(len(cells))]
        outcomes |= {n: end for n, end in results.items() if not isinstance(end, WorkerLost)}
        lost = {n: end for n, end in results.items() if isinstance(end, WorkerLost)}
        _count_losses(lost, losses, outcomes)
        _wait_for_stale_locks(losses, outcomes)
    return [outcomes[n] for n in range(len(cells))]


def _unwrap_lost(end: Outcome | WorkerLost) -> Outcome | WorkerLost:
    """Turn the outcome "lost", of a run on several processes, into a `WorkerLost`."""
    if isinstance(end, WorkerLost) or end["state"] != "lost":
        return end
    return WorkerLost(end["error"])


def _count_losses(
    lost: dict[int, WorkerLost], losses: Counter[int], outcomes: dict[int, Outcome]
) -> None:
    """Add the `lost` cells to `losses`; add an outcome for those that were lost too often."""
    begun = [n for n, loss in lost.items() if loss.begun] or list(lost)
    losses.update(begun)
    for n in begun:
        if losses[n] >= MAX_LOSSES:
            error = f"its worker was lost {MAX_LOSSES} times; the last time: {lost[n]}"
            outcomes[n] = make_outcome("failed", error)
    again = len(lost.keys() - outcomes.keys())
    if again:
        print(f"{next(iter(lost.values()))}; cells to rerun: {again}", file=sys.stderr)


def _wait_for_stale_locks(losses: Counter[int], outcomes: dict[int, Outcome]) -> None:
    """Wait until locks left by workers killed on other machines are stale, to rerun their cells."""
    held = [n for n in losses if n in outcomes and outcomes[n]["state"] == "running elsewhere"]
    if held := [n for n in held if losses[n] < MAX_LOSSES]:
        losses.update(held)
        for n in held:
            del outcomes[n]
        time.sleep(STALE_SECONDS)
