"""All task types by kind."""

from __future__ import annotations

from collections.abc import Mapping

from unipeft_run.data.tasks.base import Task
from unipeft_run.task_types.base import TaskType
from unipeft_run.task_types.causal import Causal
from unipeft_run.task_types.classification import Classification
from unipeft_run.task_types.image_classification import ImageClassification
from unipeft_run.task_types.regression import Regression
from unipeft_run.task_types.retrieval import Retrieval
from unipeft_run.task_types.seq2seq import Seq2Seq

_TYPES: tuple[type[TaskType], ...] = (
    *(Seq2Seq, Classification, Regression, Causal, ImageClassification, Retrieval),
)
TASK_TYPES: Mapping[str, TaskType] = {cls.kind: cls() for cls in _TYPES}


def task_type_of(task: Task) -> TaskType:
    """Return the type of `task`."""
    return TASK_TYPES[task.kind]
