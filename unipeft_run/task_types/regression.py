"""Regression: one number for every example, from a backbone whose classifier has one output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unipeft_run.backbones.load import count_positions
from unipeft_run.data.batching import Collator
from unipeft_run.data.tasks.base import Task
from unipeft_run.task_types.base import BatchOutput, EvaluationStep, Rows, TaskType, on_device
from unipeft_run.training.losses import Batch, Loss, RegressionLoss, class_logits, squared_error


class RegressionStep(EvaluationStep):
    """Predicts the classifier's only output."""

    def evaluate(self, model: Any, rows: Rows, generate: bool) -> BatchOutput:
        tensors = self.to_tensors(model, rows)
        with self.fast_products(model):
            numbers = predict_numbers(model, tensors)
            loss = squared_error(numbers, tensors["labels"])
        return BatchOutput(loss, len(rows), numbers.tolist())

    def predict(self, model: Any, inputs: Sequence[Any]) -> list[float]:
        batch = on_device(model, self.collator.pad_sources(inputs))
        device = batch["input_ids"].device
        with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            numbers: list[float] = predict_numbers(model, batch).float().tolist()
        return numbers


class Regression(TaskType):
    """One or two texts in, a number out."""

    kind = "regression"
    step = RegressionStep

    def build_collator(self, task: Task, tokenizer: Any, config: Any) -> Collator:
        return Collator(tokenizer.pad_token_id, longest=count_positions(config))

    def build_loss(self, smoothing: float) -> Loss:
        return RegressionLoss()

    def build_grid(self, collator: Any, config: Any, batch_size: int | None) -> None:
        """Return None: no number can mark a padded row as ignored, as the label -100 does."""


def predict_numbers(model: Any, batch: Batch) -> Tensor:
    """Return the outputs [B] of a classifier with one output."""
    return class_logits(model, batch)[:, 0]
