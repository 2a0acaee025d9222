"""The source of own data: its own splits, and missing ones split off the training examples."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unipeft_run.data.cache import cache_root, write_entry
from unipeft_run.data.tasks.automatic_split import RULE, SplitRule, divide
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.found_data import SplitData, find_data
from unipeft_run.data.tasks.messages import list_names
from unipeft_run.data.tasks.splits import SPLITS
from unipeft_run.data.tasks.unlabelled import find_unlabelled
from unipeft_run.errors import UserError

if TYPE_CHECKING:  # these take long to import, and a cached summary needs neither
    import pyarrow as pa
    from datasets import Dataset

    from unipeft_run.data.tasks.source import Limits

ROW = "__row__"  # column: the row of an example in the data before it was divided, from 1
VERSION = 4  # of summaries in the cache
HUB_SUMMARIES: dict[tuple[object, ...], Summary] = {}  # by data sets and settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """The number of examples by split, and the distinct labels in order.

    `disjoint`: the held-out splits of the data that have no label in common with its train split.
    """

    examples: Mapping[str, int]
    labels: tuple[str, ...]
    disjoint: tuple[str, ...] = ()


@dataclass(frozen=True)
class OwnSource:
    """The data at `data`, a path or a hub name.

    `rule` says how missing splits are split off the training examples. `inputs`: the columns that
    identify an input; equal ones stay in one split. `label`: the column of classes, if any;
    held-out splits in which no row has a label count as missing.
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
        tables = {split: table.slice(0, limits.get(split)) for split, table in tables.items()}
        self._warn_of_untrained(tables, columns, limits.get("train"))
        return {split: Dataset(tables[split]) for split in splits}

    def _warn_of_untrained(
        self, tables: Mapping[str, pa.Table], columns: Columns, limit: int | None
    ) -> None:
        """Warn of classes that held-out examples have and none of the training examples has.

        `limit`: the number of training examples that are used, if it is limited.
        """
        if columns.label is None or not columns.labels or "train" not in tables:
            return
        found = {split: set(t.column(columns.label).to_pylist()) for split, t in tables.items()}
        for split, classes in found.items():
            names = [columns.labels[n] for n in sorted(classes - found["train"])]
            if names:
                limited = "" if limit is None else f" (with limit.train={limit})"
                log.warning(
                    "%s: its %s split has labels that no training example has%s: %s",
                    *(self.data, split, limited, list_names(names)),
                )

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
        """Count the examples and collect the labels; cached by content, and for hub data in memory.

        Raises `UserError`.
        """
        hashes = self.fingerprints(SPLITS)
        settings = [repr(part) for part in (columns, self.rule, self.inputs)]
        if not hashes:
            loaded = (*self._all.values(), *settings)
            if loaded not in HUB_SUMMARIES:
                HUB_SUMMARIES[loaded] = self._summarise(columns)
            return HUB_SUMMARIES[loaded]
        key = json.dumps([VERSION, hashes, *settings])
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        entry = cache_root() / "summaries" / f"{name}.json"
        with suppress(OSError, ValueError, TypeError, KeyError):
            content = json.loads(entry.read_bytes())
            names = (tuple(map(str, content[key])) for key in ("labels", "disjoint"))
            return Summary(dict(content["examples"]), *names)
        summary = self._summarise(columns)
        with suppress(OSError):  # a full or read-only cache: read the data again next time
            write_entry(entry, asdict(summary))
        return summary

    def _summarise(self, columns: Columns) -> Summary:
        from unipeft_run.data.tasks.labels import order_labels

        tables = self._tables([*self._splits, *self.divided()], columns, {})
        examples = {split: len(table) for split, table in tables.items()}
        if columns.label is None:
            return Summary(examples, ())
        words = {split: set(t.column(columns.label).to_pylist()) for split, t in tables.items()}
        folded = {split: {word.casefold() for word in found} for split, found in words.items()}
        trained = folded.get("train", set().union(*folded.values()))
        disjoint = tuple(split for split in self._splits if folded[split].isdisjoint(trained))
        return Summary(examples, order_labels(set().union(*words.values())), disjoint)

    @cached_property
    def _splits(self) -> Mapping[str, SplitData]:
        """The splits of the data, without held-out ones that have no labels."""
        return {split: data for split, data in self._all.items() if split not in self._unlabelled}

    @cached_property
    def _unlabelled(self) -> tuple[str, ...]:
        """The held-out splits without labels."""
        return () if self.label is None else find_unlabelled(self._all, self.label)

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
            problem = "too few examples have different texts"
            if 2 * max(Counter(keys).values()) > len(keys):
                problem = "nearly all examples have the same text"
            raise UserError(f"task.data={self.data}: {problem}, so none is left for {empty}")
        return {split: table.take(pa.array(rows, pa.int64())) for split, rows in parts.items()}
