"""The splits of a task's data, and the evaluations that accompany another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # takes seconds to import
    from datasets import Dataset

Splits = dict[str, "Dataset"]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Companion:
    """An evaluation that accompanies another one, on the first `limit` examples of `split`."""

    split: str
    limit: int | None = None
