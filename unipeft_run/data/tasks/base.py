"""What a task is: splits, their encoding, references, scores, and a trivial baseline.

Examples come from `path` (a folder with the data set's own column names), else from the
miniature source `mini`, else from the `hub`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.languages import encode_texts
from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics import Scores, accuracy

if TYPE_CHECKING:  # importing them takes seconds; unipeft-score needs neither
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerBase

Splits = dict[str, "Dataset"]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Beside:
    """Another evaluation that belongs to one: the first `limit` examples of `split`."""

    split: str
    limit: int | None = None


@dataclass(kw_only=True)
class Task(ABC):
    """One task on one data set. Concrete tasks are final; their fields are the YAML keys.

    Lengths are in tokens, special ones included. `limit` maps a split to how many of its first
    examples count. `selection` names the validation metric by which the best state is chosen.
    """

    name: str
    path: str | Path | None = None
    mini: str | None = None
    hub: Mapping[str, str | None] | None = None
    limit: Mapping[str, int | None] = field(default_factory=dict)
    max_source_length: int
    selection: str = ""

    kind: ClassVar[Literal["seq2seq", "classification"]]
    primary: ClassVar[str]  # the metric of the paper's tables
    label_names: ClassVar[tuple[str, ...]] = ()
    optional_splits: ClassVar[tuple[str, ...]] = ()
    hub_splits: ClassVar[Mapping[str, str]] = {}  # where the hub's name of a split is another
    # a split's evaluation also gives these, each metric with the name of the addition behind it
    beside: ClassVar[Mapping[str, Mapping[str, Beside]]] = {}

    @property
    @abstractmethod
    def columns(self) -> Columns: ...

    @property
    @abstractmethod
    def baseline_name(self) -> str: ...

    @abstractmethod
    def baseline(self, splits: Splits) -> list[Any]:
        """Predictions for the test split that need no model."""

    @abstractmethod
    def references(self, dataset: Dataset) -> list[Any]: ...

    @abstractmethod
    def score(self, predictions: Sequence[Any], references: Sequence[Any]) -> Scores: ...

    @abstractmethod
    def _key(self, train: bool) -> dict[str, Any]:
        """All that `_tokenize` depends on beside the tokenizer and the columns."""

    @abstractmethod
    def _tokenize(
        self, batch: Mapping[str, list[Any]], tokenizer: PreTrainedTokenizerBase, train: bool
    ) -> dict[str, list[Any]]: ...

    @property
    def num_labels(self) -> int | None:
        return len(self.label_names) or None

    @property
    def selection_rule(self) -> tuple[str, Literal["max", "min"]]:
        """The validation metric that decides, and which end of it is better."""
        return self.selection, "min" if self.selection == "loss" else "max"

    def load(self, only: Collection[str] | None = None) -> Splits:
        """The splits (or `only` some), in their order. Raises `UserError` for what is missing."""
        wanted = [name for name in (*SPLITS, *self.optional_splits) if not only or name in only]
        if self.path is not None:
            return self._load_folder(Path(self.path), wanted)
        if self.mini is not None:
            from unipeft_run.miniatures.sources import fetch

            return self._load_folder(fetch(self.mini), wanted)
        if self.hub is not None:
            return self._load_hub(wanted)
        raise UserError(f"task {self.name} has no data: set task.path=DIR, or scale=mini")

    def encode(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> Splits:
        """Token ids and labels of every split, cached by content.

        Columns: `input_ids`, a list of int32; `labels`, a list of int32 or one class number.
        """
        from unipeft_run.data.encoding import encode

        return {
            name: encode(
                dataset,
                partial(self._tokenize, tokenizer=tokenizer, train=name == "train"),
                tokenizer,
                key={**self._key(name == "train"), "columns": self.columns.required},
                description=f"Encoding {self.name} {name}",
            )
            for name, dataset in splits.items()
        }

    def ids(self, dataset: Dataset) -> list[str]:
        """The examples' own identifiers, or their numbers from 0."""
        column = self.columns.identifier
        known = column is not None and column in dataset.column_names
        return [str(value) for value in (dataset[column] if known else range(len(dataset)))]

    def _limit(self, split: str) -> int | None:
        return self.limit.get("validation" if split in self.optional_splits else split)

    def _load_folder(self, folder: Path, wanted: Sequence[str]) -> Splits:
        from unipeft_run.data.tasks.loading import read_folder_split, split_file

        names = [n for n in wanted if n in SPLITS or split_file(folder, n)]
        return {n: read_folder_split(folder, n, self.columns, self._limit(n)) for n in names}

    def _load_hub(self, wanted: Sequence[str]) -> Splits:
        from unipeft_run.data.tasks.hub import load_hub
        from unipeft_run.data.tasks.loading import checked

        assert self.hub is not None
        given: DatasetDict = load_hub(self.name, **self.hub)  # type: ignore[arg-type]
        splits = {}
        for name in wanted:
            on_hub = self.hub_splits.get(name, name)
            if on_hub not in given:
                raise UserError(
                    f"{self.hub['path']} has no split {on_hub}; it has {', '.join(given)}"
                )
            where = f"{self.hub['path']}, split {on_hub}"
            splits[name] = checked(given[on_hub], self.columns, self._limit(name), where)
        return splits


@dataclass(kw_only=True)
class SequenceTask(Task):
    """Text to text. Target lengths differ between training and evaluation, as in the paper's code.

    `language_codes`: mBART's codes of source and target, for tokenizers that have them.
    """

    max_target_length: int
    eval_target_length: int

    kind: ClassVar[Literal["seq2seq", "classification"]] = "seq2seq"

    @property
    @abstractmethod
    def language_codes(self) -> tuple[str, str]: ...

    @property
    @abstractmethod
    def source(self) -> str: ...

    @property
    @abstractmethod
    def target(self) -> str: ...

    def references(self, dataset: Dataset) -> list[str]:
        """The raw target texts."""
        return list(dataset[self.target])

    def _key(self, train: bool) -> dict[str, Any]:
        target = self._target_length(train)
        return {"lengths": (self.max_source_length, target), "codes": self.language_codes}

    def _target_length(self, train: bool) -> int:
        return self.max_target_length if train else self.eval_target_length

    def _tokenize(
        self, batch: Mapping[str, list[Any]], tokenizer: PreTrainedTokenizerBase, train: bool
    ) -> dict[str, list[Any]]:
        source_code, target_code = self.language_codes
        sources, targets = batch[self.source], batch[self.target]
        length = self._target_length(train)
        return {
            "input_ids": encode_texts(tokenizer, sources, self.max_source_length, source_code),
            "labels": encode_texts(tokenizer, targets, length, target_code),
        }


@dataclass(kw_only=True)
class ClassificationTask(Task):
    """One or two texts to a class. Labels are numbers, `label_names` their meaning."""

    label_column: str = "label"

    kind: ClassVar[Literal["seq2seq", "classification"]] = "classification"
    primary: ClassVar[str] = "accuracy"

    def references(self, dataset: Dataset) -> list[int]:
        return list(dataset[self.label_column])

    def score(self, predictions: Sequence[int], references: Sequence[int]) -> Scores:
        """Accuracy in percent."""
        return accuracy(predictions, references)

    def _key(self, train: bool) -> dict[str, Any]:
        return {"length": self.max_source_length}

    def _tokenize(
        self, batch: Mapping[str, list[Any]], tokenizer: PreTrainedTokenizerBase, train: bool
    ) -> dict[str, list[Any]]:
        texts = [batch[column] for column in self.columns.text]
        ids = tokenizer(*texts, truncation=True, max_length=self.max_source_length)["input_ids"]
        return {"input_ids": ids, "labels": batch[self.label_column]}
