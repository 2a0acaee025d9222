"""The task interface: load and encode splits, score predictions, and compute a trivial baseline.

Examples come from `path` (a folder with the data set's own column names), else from the miniature
source `mini`, else from the `hub`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unipeft_run.config.messages import unknown_choice
from unipeft_run.config.types import Count
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.source import DataSource, Source
from unipeft_run.data.tasks.splits import SPLITS, Companion, Splits
from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics import Scores
from unipeft_run.tracking import Progress, no_progress

if TYPE_CHECKING:  # these take seconds to import, and unipeft score needs neither
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from unipeft_run.data.text_encoder import TextEncoder

Kind = Literal[
    "seq2seq", "classification", "regression", "causal", "image_classification", "retrieval"
]


@dataclass(kw_only=True)
class Task(ABC):
    """One task on one data set. Concrete subclasses are final; their fields are the YAML keys.

    `limit` maps a split to the number of examples to read. `selection` names the validation metric
    that selects the best state.

    Raises `UserError` for an unknown `selection` and for columns that exclude each other.
    """

    name: str
    path: str | Path | None = None
    mini: str | None = None
    hub: Mapping[str, str | None] | None = None
    limit: Mapping[str, int | None] = field(default_factory=dict)
    selection: str = ""

    kind: ClassVar[Kind]  # names a type of unipeft_run.task_types
    label_key: ClassVar[str] = "task.label_column"  # names the column of labels
    no_predictions: ClassVar[str] = ""  # why there are none for new inputs, if there are none
    optional_splits: ClassVar[tuple[str, ...]] = ()
    hub_splits: ClassVar[Mapping[str, str]] = {}  # names of splits on the hub, if they differ
    # split -> suffix of the metrics' names -> the evaluation that accompanies that of the split
    companions: ClassVar[Mapping[str, Mapping[str, Companion]]] = {}

    def __post_init__(self) -> None:
        choices = ("loss", *self.metrics)
        if self.selection not in choices:
            raise UserError(unknown_choice("task.selection", self.selection, choices))
        columns = self.columns
        others = (*columns.text, columns.identifier)
        if columns.label is not None and columns.label in others:
            raise UserError(
                f"{self.label_key}={columns.label} is also the column of texts or ids: "
                "labels need a separate column"
            )

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that `score` computes."""

    @property
    @abstractmethod
    def primary(self) -> str:
        """The metric printed in the paper's tables."""

    @property
    @abstractmethod
    def columns(self) -> Columns: ...

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that the model reads; the others hold what it predicts."""
        return self.columns.text

    @property
    @abstractmethod
    def baseline_name(self) -> str: ...

    @abstractmethod
    def baseline(self, splits: Splits) -> list[Any]:
        """Predict the test split without a model; classification also needs the train split."""

    @abstractmethod
    def references(self, dataset: Dataset) -> list[Any]: ...

    @abstractmethod
    def score(self, predictions: Sequence[Any], references: Sequence[Any]) -> Scores: ...

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers; () for a task that writes text."""
        return ()

    @property
    def num_labels(self) -> int | None:
        """The outputs of the classifier; None for a task that needs no classifier."""
        return len(self.label_names) or None

    @property
    def generates(self) -> bool:
        """True if predictions are generated texts."""
        return False

    @property
    def selection_rule(self) -> tuple[str, Literal["max", "min"]]:
        """The validation metric that selects the best state, and whether to maximise it."""
        return self.selection, "min" if self.selection == "loss" else "max"

    def splits_for(self, split: str) -> tuple[str, ...]:
        """Return the splits that evaluating `split` reads: itself and those of its companions."""
        others = (companion.split for companion in self.companions.get(split, {}).values())
        return tuple(dict.fromkeys((split, *others)))

    def load(self, splits: Collection[str] | None = None) -> Splits:
        """Load `splits`, by default all. Raises `UserError` if one is unknown, missing or wrong.

        Optional splits that the data lacks are left out.
        """
        return self._source.load(self._split_names(splits), self.columns, self._limits())

    def fingerprints(self, splits: Collection[str] | None = None) -> dict[str, str]:
        """Return a content hash of the files of each split; {} for data from the hub.

        An unchanged file costs one `stat`. Raises `UserError` for a missing split.
        """
        return self._source.fingerprints(self._split_names(splits))

    @abstractmethod
    def encode(self, splits: Splits, tokenizer: Any, progress: Progress = no_progress) -> Splits:
        """Encode every split for a collator of the task's type, cached by content."""

    def name_predictions(self, predictions: Sequence[Any], dataset: Dataset) -> list[Any]:
        """Return predictions for `dataset` as they are written to files: classes by name."""
        if names := self.label_names:
            return [names[value] for value in predictions]
        return [f"{value:.6g}" if isinstance(value, float) else value for value in predictions]

    def name_references(self, references: Sequence[Any], dataset: Dataset) -> list[Any]:
        """Return the references of `dataset` as they are written to files."""
        return self.name_predictions(references, dataset)

    def ids(self, dataset: Dataset) -> list[str]:
        """Return the ids in the data if they are present and unique, else row numbers."""
        column = self.columns.identifier
        if column is not None and column in dataset.column_names:
            own = [str(value) for value in dataset[column]]
            if len(set(own)) == len(own):
                return own
        return [str(number) for number in self._row_numbers(dataset)]

    def load_file(self, file: Path) -> Dataset:
        """Load all examples of one file, as `load` loads those of a split. Raises `UserError`."""
        from unipeft_run.data.tasks.loading import load_file

        return load_file(file, self.columns)

    def parts(self, dataset: Dataset) -> dict[str, list[int]]:
        """Return the rows of each test that a split consists of; {} for a single test."""
        return {}

    def inert_keys(self) -> dict[str, str]:
        """Return the fields that have no effect with this data and these metrics, with reasons."""
        return {}

    def describe_split(self, splits: Splits) -> dict[str, Any]:
        """Describe how the data was divided into `splits`; {} if its own splits are used."""
        return {}

    def _row_numbers(self, dataset: Dataset) -> Sequence[int]:
        return range(len(dataset))

    @property
    def _source(self) -> DataSource:
        optional, hub_splits = self.optional_splits, self.hub_splits
        return Source(self.name, self.path, self.mini, self.hub, optional, hub_splits)

    def _split_names(self, splits: Collection[str] | None) -> list[str]:
        known = (*SPLITS, *self.optional_splits)
        for name in splits or ():
            if name not in known:
                raise UserError(unknown_choice("split", name, known))
        return [name for name in known if splits is None or name in splits]

    def _limits(self) -> dict[str, int | None]:
        """Return the limit of each split; that of validation also applies to optional splits."""
        names = {split: split for split in SPLITS} | dict.fromkeys(
            self.optional_splits, "validation"
        )
        return {split: self.limit.get(name) for split, name in names.items()}


@dataclass(kw_only=True)
class TextTask(Task):
    """A task that reads texts. Lengths are in tokens and include special tokens."""

    max_source_length: Count

    @abstractmethod
    def _cache_key(self, train: bool) -> dict[str, Any]:
        """Return everything that `_tokenize` depends on besides the tokenizer and the columns."""

    @abstractmethod
    def _tokenize(
        self, batch: Mapping[str, list[Any]], encoder: TextEncoder, train: bool
    ) -> dict[str, list[Any]]: ...

    @abstractmethod
    def _check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raise `UserError` for a length or language code that `tokenizer` does not allow."""

    def encode(
        self,
        splits: Splits,
        tokenizer: PreTrainedTokenizerBase,
        progress: Progress = no_progress,
    ) -> Splits:
        """Encode every split as token ids and labels, cached by content.

        Columns: `input_ids`, a list of int32; `labels`, a list of int32 or one class number.
        Raises `UserError` for lengths and language codes that `tokenizer` does not allow.
        """
        from unipeft_run.data.encoding import encode
        from unipeft_run.data.text_encoder import TextEncoder

        self._check_tokenizer(tokenizer)
        encoder = TextEncoder(tokenizer)
        return {
            name: encode(
                dataset,
                partial(self._tokenize, encoder=encoder, train=name == "train"),
                tokenizer,
                key={**self._cache_key(name == "train"), "columns": self.columns.text},
                description=f"encoding {name}",
                progress=progress,
            )
            for name, dataset in splits.items()
        }

    def complete_inputs(self, inputs: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Return examples with these input columns, and placeholders for their references."""
        columns = self.columns
        count = len(inputs[self.input_columns[0]])
        placeholders: dict[str, list[Any]] = {
            name: [0 if name == columns.label else ""] * count for name in columns.required
        }
        return {**placeholders, **inputs}

    def inputs_of(self, encoded: Mapping[str, list[Any]]) -> list[Any]:
        """Return what a model reads of encoded examples: token ids."""
        return encoded["input_ids"]


def __getattr__(name: str) -> Any:
    """Find SequenceTask where it was in version 0.2, for tasks outside this package."""
    if name == "SequenceTask":
        from unipeft_run.data.tasks.sequence import SequenceTask

        return SequenceTask
    raise AttributeError(name)
