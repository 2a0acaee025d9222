"""The result of checking a cell before it runs: its identity, and whether it is finished."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig


@dataclass(frozen=True)
class CheckedRun:
    """A legal run. Equal runs have the same `identity`. `is_finished`: it will be skipped."""

    identity: Hashable
    is_finished: bool = False


Check = Callable[[DictConfig, Sequence[str]], CheckedRun]  # raises UserError
