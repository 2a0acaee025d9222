"""Encode new inputs, which have no references, exactly as a task encodes its own data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from unipeft_run.data.tasks.base import Task, TextTask
from unipeft_run.errors import UserError

if TYPE_CHECKING:  # takes seconds to import
    from transformers import PreTrainedTokenizerBase


def input_columns(task: Task) -> tuple[str, ...]:
    """Return the columns that the model reads; the others hold what it predicts."""
    return task.input_columns


def check_predicts(task: Task) -> None:
    """Raise UserError if the task makes no predictions for new inputs."""
    if task.no_predictions:
        raise UserError(f"task {task.name} predicts nothing for new inputs: {task.no_predictions}")


def encode_inputs(
    task: Task, inputs: Mapping[str, list[Any]], tokenizer: PreTrainedTokenizerBase
) -> list[Any]:
    """Return the token ids of new examples, encoded as the task encodes its test split.

    `inputs` maps each of `input_columns` to its texts. Placeholders stand for the references, so
    the task's own code encodes the sources. Nothing is cached. Raises `UserError` for lengths and
    language codes that `tokenizer` does not allow.
    """
    from unipeft_run.data.text_encoder import TextEncoder

    reader = cast("TextTask", task)
    reader._check_tokenizer(tokenizer)
    examples = reader.complete_inputs(inputs)
    return reader.inputs_of(reader._tokenize(examples, TextEncoder(tokenizer), train=False))
