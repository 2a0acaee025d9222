"""Run the trials that a sweeper proposes, and return their results to it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from hydra.core.utils import JobReturn, JobStatus

from unipeft_run.config import implied_overrides
from unipeft_run.errors import UserError
from unipeft_run.runs.outcome import GOOD, Outcome, make_outcome, refused_outcome
from unipeft_run.sweeps.engines import Engine, launch_in_rounds
from unipeft_run.sweeps.hydra_settings import placed_key
from unipeft_run.sweeps.objective import Objective
from unipeft_run.sweeps.table import Cell


class TrialFailed(Exception):
    """A trial ended without a value; the sweeper counts it as failed."""


class FailedReturn(JobReturn):  # type: ignore[misc]
    """The return of a failed trial. Hydra's would also print a line; ours is printed already."""

    @property
    def return_value(self) -> NoReturn:
        """Raise the failure."""
        raise self._return_value


class AllTried(Exception):
    """Every combination of the search space has had a trial."""


@dataclass
class Trials:
    """The launcher that a sweeper sees; keeps the cell, identity and outcome of every trial.

    `check` returns the identity of a cell's run, or raises UserError. `folder`: the sweeper's.
    `fixed`: the overrides that all trials share. `total`: the number of trials, if known.
    `combinations`: the size of the search space, if it is finite.
    """

    engine: Engine
    check: Callable[[Cell], Hashable]
    objective: Objective
    folder: Path
    fixed: Cell
    total: int | None
    combinations: int | None = None
    cells: list[Cell] = field(default_factory=list)
    identities: list[Hashable] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run the proposed trials; return the value of each, or an exception to raise.

        Raises AllTried if there is no other combination to run.
        """
        if self.combinations == len(set(map(tuple, self.cells))):
            raise AllTried
        first = len(self.cells)
        self.cells += map(self._join, job_overrides)
        numbers = range(first, len(self.cells))
        refused = {n: outcome for n in numbers if (outcome := self._identify(n))}
        new = [n for n in numbers if n not in refused and self._twin(n) == n]
        ran = dict(zip(new, self._run([self.cells[n] for n in new]), strict=True))
        for number in numbers:
            outcome = refused.get(number) or ran.get(number) or self._copy(self._twin(number))
            self.outcomes.append(outcome)
            if not self.is_repeated(number):
                print(self._describe(number), file=sys.stderr)
        return [self._as_return(number) for number in numbers]

    @property
    def best(self) -> int | None:
        """The number of the best trial; None if none has a value."""
        return self.objective.best(self.outcomes)

    def is_repeated(self, number: int) -> bool:
        """Return whether the sweeper has proposed the same cell before."""
        return self.cells.index(self.cells[number]) < number

    def _join(self, proposed: Sequence[str]) -> Cell:
        """Join the fixed overrides, as they were typed, with those of the sweeper."""
        keys = set(map(placed_key, self.fixed))
        own = [override for override in proposed if placed_key(override) not in keys]
        return [*self.fixed, *own, *implied_overrides([*self.fixed, *own])]

    def _identify(self, number: int) -> Outcome | None:
        """Add the identity of a trial; return its outcome if it is refused.

        Raises UserError for the first trial, because the others would fail in the same way.
        """
        self.identities.append(number)  # a placeholder, until the run is known
        try:
            self.identities[number] = self.check(self.cells[number])
        except UserError as refusal:
            if number == 0:
                raise
            return refused_outcome(refusal)
        return None

    def _twin(self, number: int) -> int:
        """Return the first trial with the same run, which may be this one."""
        return self.identities.index(self.identities[number])

    def _copy(self, twin: int) -> Outcome:
        outcome, equal = self.outcomes[twin], f"the same run as trial {twin + 1}"
        if outcome["state"] not in GOOD:
            return outcome
        return {**make_outcome("equal", equal), "metrics": outcome["metrics"]}

    def _run(self, cells: Sequence[Cell]) -> list[Outcome]:
        if not cells:
            return []
        engine = self.engine
        outcomes = launch_in_rounds(engine.launch, cells, shared_fate=engine.shared_fate)
        return [self._require_value(outcome) for outcome in outcomes]

    def _require_value(self, outcome: Outcome) -> Outcome:
        if outcome["state"] not in GOOD or self.objective.value(outcome) is not None:
            return outcome
        return make_outcome("failed", f"the run has no finite {self.objective.metric}")

    def _as_return(self, number: int) -> JobReturn:
        outcome = self.outcomes[number]
        value = self.objective.value(outcome)
        if value is None:
            failure = TrialFailed(outcome["error"] or outcome["state"])
            return FailedReturn(status=JobStatus.FAILED, _return_value=failure)
        return JobReturn(status=JobStatus.COMPLETED, _return_value=value)

    def _describe(self, number: int) -> str:
        outcome = self.outcomes[number]
        value = self.objective.value(outcome)
        own = " ".join(word for word in self.cells[number] if word not in self.fixed)
        parts = [
            f"trial {number + 1}" + (f"/{self.total}" if self.total else ""),
            outcome["state"],
            "" if value is None else self.objective.format(value),
            own,
            "(best so far)" if self.best == number else "",
        ]
        return "  ".join(part for part in parts if part)
