"""The columns that a task reads from a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Columns:
    """The column names of a task; a nested column has a dotted name ("translation.en").

    `text` may name a column twice; those in `lists` hold a list of texts. `labels` are the class
    names, in order; None to read labels as words. `numbers`: the labels are numbers to predict. The
    data may lack the column `identifier`. `other_names` maps a column to an alternative name,
    `keys` to the configuration key that names it, for error messages. `images` is the column of
    images, which is read separately.
    """

    text: tuple[str, ...]
    label: str | None = None
    labels: tuple[str, ...] | None = ()
    identifier: str | None = None
    numbers: bool = False
    other_names: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    lists: tuple[str, ...] = ()
    images: str | None = None

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that the data must have, each once."""
        label = () if self.label is None else (self.label,)
        return tuple(dict.fromkeys((*self.text, *label)))

    @property
    def label_spellings(self) -> tuple[str, ...]:
        """The names that the column of labels may have; empty without one."""
        return () if self.label is None else self.spellings(self.label)

    def spellings(self, column: str) -> tuple[str, ...]:
        """Return the names that `column` may have in the data, the preferred one first."""
        other = self.other_names.get(column)
        return (column,) if other is None else (column, other)
