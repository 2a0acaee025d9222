"""What a task reads of a data set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Columns:
    """The columns a task reads. `identifier` may be missing; `labels`: names of the classes."""

    text: tuple[str, ...]
    label: str | None = None
    labels: tuple[str, ...] = ()
    identifier: str | None = None

    @property
    def required(self) -> tuple[str, ...]:
        return self.text if self.label is None else (*self.text, self.label)
