"""The base class of tasks on the user's own data: its place, its split, and metrics by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from unipeft_run.config.types import StringOrList, one_or_many
from unipeft_run.data.tasks.automatic_split import SplitRule
from unipeft_run.data.tasks.base import Task
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.own_source import ROW, OwnSource, Summary
from unipeft_run.data.tasks.source import DataSource
from unipeft_run.data.tasks.splits import Splits
from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics.by_name import Kind, check_names, is_lower_better

if TYPE_CHECKING:  # takes seconds to import
    from datasets import Dataset

SplitSize = Annotated[float, Field(gt=0, le=10**9, allow_inf_nan=False)]
IDENTIFIER = "id"  # column: used for the ids of predictions, if the data has it


@dataclass(kw_only=True)
class OwnData(Task):
    """A task on the user's own data.

    `data` is a file, a folder or a hub name; `path`, a folder, takes precedence. `metric` names the
    metrics; the first is the primary one and selects the best state unless `selection` is "loss".
    """

    data: str | None = None
    metric: StringOrList
    validation_size: SplitSize | None = None
    test_size: SplitSize | None = None
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    selection: str = "metric"

    metric_kind: ClassVar[Kind]

    def __post_init__(self) -> None:
        self.metric = one_or_many(self.metric)
        check_names(self.metric, self.metric_kind)
        if self.selection == "metric":
            self.selection = self.primary
        super().__post_init__()

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.metric)

    @property
    def primary(self) -> str:
        return self.metric[0]

    @property
    def selection_rule(self) -> tuple[str, Literal["max", "min"]]:
        lower = self.selection == "loss" or is_lower_better(self.selection)
        return self.selection, "min" if lower else "max"

    def summarise(self) -> Summary:
        """Count the examples and collect the labels. Raises `UserError`."""
        return self._own_source.summarise(self._summary_columns)

    def class_names(self) -> tuple[str, ...]:
        """List the distinct labels of the data. Raises `UserError`."""
        return tuple(self.summarise().labels)

    def inert_keys(self) -> dict[str, str]:
        try:
            divided = self._own_source.divided()
        except UserError:  # the data is missing; loading it will report that
            return {}
        sizes = [split for split in ("validation", "test") if split not in divided]
        inert = {f"{split}_size": f"the data has a {split} split" for split in sizes}
        return inert if divided else {**inert, "split_seed": "the data is divided already"}

    def describe_split(self, splits: Splits) -> dict[str, Any]:
        return self._own_source.record(splits)

    def _row_numbers(self, dataset: Dataset) -> Sequence[int]:
        return list(dataset[ROW]) if ROW in dataset.column_names else range(1, len(dataset) + 1)

    @property
    def _summary_columns(self) -> Columns:
        return self.columns

    @property
    def _source(self) -> DataSource:
        return self._own_source

    @property
    def _own_source(self) -> OwnSource:
        rule = SplitRule(self.validation_size, self.test_size, self.split_seed)
        data = self.data if self.path is None else str(self.path)
        return OwnSource(self.name, data, rule, self.input_columns, self.columns.label)
