"""`Attached`: what a named delta consists of, site by site."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from unipeft_run.config.schema import SLOTS
from unipeft_run.runs.columns import align

if TYPE_CHECKING:
    from torch import nn

    from unipeft_run.deltas.delta import Delta

HEADER = ("slot", "representation", "path", "sites", "trained", "stored", "share")


@dataclass(frozen=True)
class Attached:
    """A named delta: its sites and parameter counts. `print` shows them as a table.

    Args:
        name: the delta's name on its model.
        method: the method's name, or `custom` for one described by its axes.
        model: class name of the backbone.
        backbone: parameter count of the backbone.
        sites: a row for each slot, representation and path: `slot`, `representation`, `path`,
            `sites`, `trained`, `stored`.
    """

    name: str
    method: str
    model: str
    backbone: int
    sites: tuple[Mapping[str, Any], ...]

    @property
    def trained(self) -> int:
        """Count the parameters that receive a gradient."""
        return sum(row["trained"] for row in self.sites)

    @property
    def stored(self) -> int:
        """Count the parameters that inference needs: those that `unipeft.save` writes."""
        return sum(row["stored"] for row in self.sites)

    @property
    def stored_percent(self) -> float:
        """The stored parameters in percent of the backbone's."""
        return 100 * self.stored / self.backbone

    def __str__(self) -> str:
        total = {"slot": "total", "representation": "", "path": "", "sites": ""}
        rows = [*self.sites, {**total, "trained": self.trained, "stored": self.stored}]
        table = align(HEADER, [self._cells(row) for row in rows], left=(0, 1, 2))
        return "\n".join([f"{self.name}: {self.method} on {self.model}", *table])

    __repr__ = __str__

    def _cells(self, row: Mapping[str, Any]) -> list[str]:
        cells = [row[key] if isinstance(row[key], str) else f"{row[key]:,}" for key in HEADER[:-1]]
        return [*cells, f"{100 * row['stored'] / self.backbone:.2f} %"]


def attached(model: nn.Module) -> dict[str, Attached]:
    """Return the named deltas of a model, active or not, by name."""
    from unipeft_run.library.store import find_store

    store = find_store(model)
    return {name: delta.summary for name, delta in store.named.items()} if store else {}


def tabulate_sites(
    deltas: Iterable[tuple[str, Delta]], unfrozen: Mapping[str, int], patterns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each slot, representation and path of the deltas, and one for `unfrozen`.

    `unfrozen` holds the sizes of the backbone parameters that train, selected by `patterns`.
    """
    from unipeft_run.deltas.attach import slot_of
    from unipeft_run.deltas.counting.counts import count_by

    paths: dict[tuple[str, str, str], list[int]] = {}
    keyed = []
    for path, delta in deltas:
        place, layer = _split_layer(delta.site.write.path)
        key = (slot_of(path), delta.site.representation, place)
        paths.setdefault(key, []).extend(layer)
        keyed.append((key, delta))
    rows = count_by(keyed)
    for key in sorted(rows, key=lambda key: SLOTS.index(key[0])):
        slot, representation, place = key
        path = place.replace("*", _format_ranges(paths[key]))
        yield {"slot": slot, "representation": representation, "path": path, **rows[key]}
    if unfrozen:
        total = sum(unfrozen.values())
        counts = {"sites": len(unfrozen), "trained": total, "stored": total}
        path = ", ".join(patterns)
        yield {"slot": "unfreeze", "representation": "backbone", "path": path, **counts}


def _split_layer(path: str) -> tuple[str, list[int]]:
    """Replace the layer number in a path by *; return it as well."""
    parts = path.split(".")
    numbers = [int(part) for part in parts if part.isdigit()]
    return ".".join("*" if part.isdigit() else part for part in parts), numbers


def _format_ranges(numbers: Sequence[int]) -> str:
    """Format layer numbers: 0-11, or 0-2,5."""
    texts = []
    for _, group in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        texts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ",".join(texts)
