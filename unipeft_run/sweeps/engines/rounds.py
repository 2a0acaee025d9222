"""The cells of killed workers are taken up again, a few times each."""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence

from unipeft_run.errors import UserError
from unipeft_run.runs.lock import STALE_SECONDS
from unipeft_run.runs.outcome import Outcome, ended
from unipeft_run.sweeps.engines.worker import Lost

Cell = list[str]
Launch = Callable[[list[Cell]], list[Outcome | Lost]]
TIMES = 3  # that a cell may lose its worker


def in_rounds(launch: Launch, cells: Sequence[Cell], *, shared_fate: bool = False) -> list[Outcome]:
    """An outcome for each of `cells`, whatever becomes of the workers.

    A cell whose worker was killed is in the next round too, and goes on from its checkpoint. With
    shared_fate one killed worker takes the others with it: what was in their hands comes after
    the rest, and by itself at last, so that a cell that kills its worker ends no other.
    """
    ends: dict[int, Outcome] = {}
    losses: Counter[int] = Counter()
    while waiting := [number for number in range(len(cells)) if number not in ends]:
        calm = [n for n in waiting if not (shared_fate and losses[n] == TIMES - 1)]
        round_ = sorted(calm, key=losses.__getitem__) or waiting[:1]
        try:
            launched = map(_told, launch([cells[n] for n in round_]))
            backs = dict(zip(round_, launched, strict=True))
        except UserError:
            raise
        except Exception as failure:
            traceback.print_exc(file=sys.stderr)
            problem = f"the launcher failed: {type(failure).__name__}: {failure}".partition("\n")[0]
            return [ends.get(n) or ended("failed", problem) for n in range(len(cells))]
        ends |= {n: back for n, back in backs.items() if not isinstance(back, Lost)}
        _count({n: back for n, back in backs.items() if isinstance(back, Lost)}, losses, ends)
        _wait_for_locks(losses, ends)
    return [ends[n] for n in range(len(cells))]


def _told(back: Outcome | Lost) -> Outcome | Lost:
    """A run over several processes says itself that one of them was killed."""
    return back if isinstance(back, Lost) or back["state"] != "lost" else Lost(back["error"])


def _count(lost: dict[int, Lost], losses: Counter[int], ends: dict[int, Outcome]) -> None:
    """Add the `lost` cells to `losses`; the end of those that were lost too often to `ends`."""
    held = [n for n, loss in lost.items() if loss.held] or list(lost)
    losses.update(held)
    for n in held:
        if losses[n] >= TIMES:
            ends[n] = ended(
                "failed", f"its worker was lost {TIMES} times; the last time: {lost[n]}"
            )
    again = len(lost.keys() - ends.keys())
    if again:
        print(f"{next(iter(lost.values()))}; cells taken up again: {again}", file=sys.stderr)


def _wait_for_locks(losses: Counter[int], ends: dict[int, Outcome]) -> None:
    """A worker killed on another machine is known to be dead when its heartbeat is old."""
    held = [n for n in losses if n in ends and ends[n]["state"] == "running elsewhere"]
    if held := [n for n in held if losses[n] < TIMES]:
        losses.update(held)
        for n in held:
            del ends[n]
        time.sleep(STALE_SECONDS)
