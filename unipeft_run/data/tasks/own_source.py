"""The source of own data: its own splits, and missing ones split off the training examples."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unipeft_run.data.cache import cache_root, write_entry
from unipeft_run.data.tasks.automatic_split import RULE, SplitRule, divide
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.found_data import SplitData, find_data
from unipeft_run.data.tasks.splits import SPLITS
from unipeft_run.errors import UserError

if TYPE_CHECKING:  # these take long to import, and a cached summary needs neither
    import pyarrow as pa
    from datasets import Dataset

    from unipeft_run.data.tasks.source import Limits

ROW = "__row__"  # column: the row of an example in the data before it was divided, from 1
VERSION = 3  # of summaries in the cache

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """The number of examples by split, and the distinct labels in order."""

    examples: Mapping[str, int]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class OwnSource:
    """The data at `data`, a path or a hub name; `rule` divides off the splits that it lacks.

    `inputs`: the columns that identify an input; equal ones stay in one split. `label`: the column
    of classes, if any; held-out splits without a single label there count as lacking.
    """

    task: str
    data: str | None
    rule: SplitRule
    inputs: tuple[str, ...]
    label: str | None = None

    def load(self, splits: Sequence[str], columns: Columns, limits: Limits) -> dict[str, Dataset]:
        """Load the first rows of `splits`. Raises `UserError`."""
        from datasets import Dataset

        for split in self._unlabelled:
            if split in splits:
                log.warning(
                    "%s: its %s split has no labels; another is split off the training examples",
                    *(self.data, split),
                )
        tables = self._tables(splits, columns, limits)
        return {split: Dataset(tables[split].slice(0, limits.get(split))) for split in splits}

    def fingerprints(self, splits: Sequence[str]) -> dict[str, str]:
        """Return a content hash for each split; {} for data from the hub."""
        found = self._splits
        hashes = {split: found.get(split, found.get("train")) for split in splits}
        digests = {split: data.fingerprint() for split, data in hashes.items() if data}
        return {split: digest for split, digest in digests.items() if digest}

    def divided(self) -> tuple[str, ...]:
        """Return the splits that the data lacks, which are divided off the training data."""
        found = self._splits
        return tuple(split for split in ("validation", "test") if split not in found)

    def record(self, splits: Mapping[str, Dataset]) -> dict[str, Any]:
        """Describe how the data was divided, with the rows split off; {} if it was not divided."""
        divided = self.divided()
        if not divided:
            return {}
        rows = {split: list(splits[split][ROW]) for split in divided if split in splits}
        examples = {split: len(dataset) for split, dataset in splits.items()}
        made = {"data": self.data, "rule": RULE, "seed": self.rule.seed}
        return {**made, "examples": examples, "rows": rows}

    def summarise(self, columns: Columns) -> Summary:
        """Count the examples and collect the labels; cached by content. Raises `UserError`."""
        hashes = self.fingerprints(SPLITS)
        if not hashes:
            return self._summarise(columns)
        key = json.dumps([VERSION, hashes, *map(repr, (columns, self.rule, self.inputs))])
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        entry = cache_root() / "summaries" / f"{name}.json"
        with suppress(OSError, ValueError, TypeError, KeyError):
            content = json.loads(entry.read_bytes())
            return Summary(dict(content["examples"]), tuple(map(str, content["labels"])))
        summary = self._summarise(columns)
        with suppress(OSError):  # a full or read-only cache: read the data again next time
            write_entry(entry, {"examples": dict(summary.examples), "labels": summary.labels})
        return summary

    def _summarise(self, columns: Columns) -> Summary:
        tables = self._tables([*self._splits, *self.divided()], columns, {})
        words: list[str] = []
        if columns.label is not None:
            words = [w for t in tables.values() for w in t.column(columns.label).to_pylist()]
        return Summary({split: len(t) for split, t in tables.items()}, order_labels(words))

    @cached_property
    def _splits(self) -> Mapping[str, SplitData]:
        """The splits of the data, without held-out ones that have no labels."""
        return {split: data for split, data in self._all.items() if split not in self._unlabelled}

    @cached_property
    def _unlabelled(self) -> tuple[str, ...]:
        """The held-out splits without labels, as benchmarks publish their test splits."""
        label = self.label
        if label is None:
            return ()
        held_out = [split for split in self._all if split != "train"]
        return tuple(split for split in held_out if self._all[split].is_unlabelled(label))

    @cached_property
    def _all(self) -> Mapping[str, SplitData]:
        if self.data is None:
            raise UserError(
                f"task {self.task} needs data; give data=FILE (CSV, TSV, JSON Lines, Parquet), "
                "a folder, or a hub name"
            )
        return find_data(self.data, self.task)

    def _tables(
        self, splits: Collection[str], columns: Columns, limits: Limits
    ) -> dict[str, pa.Table]:
        from unipeft_run.data.tasks.labels import check_order

        found, divided = self._splits, self.divided()
        tables: dict[str, pa.Table] = {}
        orders: list[tuple[str, bool | None]] = []
        for split in dict.fromkeys("train" if s in divided else s for s in splits):
            if split not in found:
                raise UserError(f"task.data={self.data} has no {split} split")
            limit = None if divided and split == "train" else limits.get(split)
            tables[split], order = found[split].read(columns, limit)
            orders += order
        check_order(orders)
        if divided and "train" in tables:
            tables |= self._divide(tables["train"], divided, columns.label)
        return {split: tables[split] for split in splits}

    def _divide(
        self, table: pa.Table, splits: Collection[str], label: str | None
    ) -> dict[str, pa.Table]:
        import pyarrow as pa

        texts = zip(*(table.column(name).to_pylist() for name in self.inputs), strict=True)
        keys = ["\0".join(row) for row in texts]
        classes = table.column(label).to_pylist() if label else None
        sizes = self.rule.sizes(splits, len(table))
        table = table.append_column(ROW, pa.array(range(1, len(table) + 1), pa.int64()))
        parts = divide(keys, classes, sizes, self.rule.seed)
        if empty := next((split for split, rows in parts.items() if not rows), None):
            raise UserError(
                f"task.data={self.data} has too few different examples: none is left for {empty}"
            )
        return {split: table.take(pa.array(rows, pa.int64())) for split, rows in parts.items()}


def order_labels(words: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct labels, numbers by value, words by name, ignoring case."""
    names: dict[str, str] = {}
    for word in sorted(set(words)):
        names.setdefault(word.casefold(), word)
    if all(name.removeprefix("-").isdecimal() for name in names):
        return tuple(sorted(names.values(), key=int))
    return tuple(names[name] for name in sorted(names))
