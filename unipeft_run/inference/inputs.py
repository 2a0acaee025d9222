"""Convert texts, pairs and mappings to the input columns of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unipeft_run.data.new_inputs import check_predicts, input_columns
from unipeft_run.data.tasks.base import Task
from unipeft_run.data.tasks.messages import describe_value, missing_column
from unipeft_run.errors import UserError


def collect_inputs(task: Task, examples: Sequence[Any]) -> dict[str, list[str]]:
    """Return the texts of `examples` by input column of `task`.

    An example is a text (for tasks with one input column), a tuple of texts in the order of the
    columns, or a mapping from the columns' names. Raises UserError for anything else.
    """
    check_predicts(task)
    if isinstance(examples, str | Mapping):
        kind = "text" if isinstance(examples, str) else "mapping"
        raise UserError(f"predict takes a list of inputs, not a single {kind}: predict([...])")
    rows = [_row(task, example, number) for number, example in enumerate(examples, start=1)]
    columns = input_columns(task)
    return {name: [row[place] for row in rows] for place, name in enumerate(columns)}


def _row(task: Task, example: Any, number: int) -> Sequence[str]:
    columns = input_columns(task)
    if isinstance(example, Mapping):
        texts = [_find(task, example, column, number) for column in columns]
    elif isinstance(example, str):
        texts = [example]
    else:
        texts = list(example) if isinstance(example, tuple | list) else [example]
    if len(texts) != len(columns):
        expected = "a text"
        if len(columns) > 1:
            kind = "a pair" if len(columns) == 2 else "a tuple or mapping"
            expected = f"{kind} ({', '.join(columns)})"
        raise UserError(
            f"input {number} is {describe_value(example)}: task {task.name} reads {expected}"
        )
    for column, value in zip(columns, texts, strict=True):
        if column in task.columns.lists:
            if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
                raise UserError(f"input {number}: {column} must be a list of texts")
        elif not isinstance(value, str):
            raise UserError(f"input {number}: {column} is {describe_value(value)}, not text")
    return texts


def _find(task: Task, example: Mapping[str, Any], column: str, number: int) -> Any:
    for name in task.columns.spellings(column):
        if name in example:
            return example[name]
    raise UserError(missing_column(f"input {number}", column, list(map(str, example))))
