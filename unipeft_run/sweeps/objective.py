"""The objective of a search: the metric by which the task selects the best state of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unipeft_run.config.schema import TaskConfig
from unipeft_run.data.tasks.build import build_task
from unipeft_run.runs.outcome import GOOD, Outcome
from unipeft_run.runs.reader import is_number


@dataclass(frozen=True)
class Objective:
    """A validation metric and its direction, `maximize` or `minimize` as Optuna writes them."""

    metric: str
    direction: str

    def value(self, outcome: Outcome) -> float | None:
        """Return the value of a finished run; None for one that failed or diverged."""
        value: Any = outcome["metrics"].get(self.metric)
        if outcome["state"] not in GOOD or not is_number(value) or not math.isfinite(value):
            return None
        return float(value)

    def best(self, outcomes: Sequence[Outcome]) -> int | None:
        """Return the number of the best outcome, the first of equals; None if all failed."""
        sign = -1 if self.direction == "maximize" else 1
        values = {n: sign * v for n, o in enumerate(outcomes) if (v := self.value(o)) is not None}
        return min(values, key=values.__getitem__) if values else None

    def format(self, value: float) -> str:
        """Format a value with its name: percentages with two decimals, losses with four."""
        return f"{self.metric} {value:.{4 if self.metric.endswith('loss') else 2}f}"


def objective_of(config: DictConfig) -> Objective:
    """Return the objective of the task in `config`. Raises UserError for a wrong task."""
    section = OmegaConf.to_container(config.task, resolve=True)
    name, mode = build_task(TaskConfig.model_validate(section)).selection_rule
    return Objective(f"validation/{name}", {"max": "maximize", "min": "minimize"}[mode])
