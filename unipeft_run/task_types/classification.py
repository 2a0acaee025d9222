"""Classification: one class for every example, from a backbone with a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unipeft_run.backbones.load import count_positions
from unipeft_run.data.batching import Collator
from unipeft_run.data.tasks.base import Task
from unipeft_run.task_types.base import BatchOutput, EvaluationStep, Rows, TaskType, on_device
from unipeft_run.training.losses import ClassificationLoss, Loss, class_logits, cross_entropy


class ClassPrediction(NamedTuple):
    """The predicted class by name, its probability, and the probability of every class."""

    label: str
    probability: float
    probabilities: dict[str, float]


class ClassificationStep(EvaluationStep):
    """Predicts the class with the largest logit."""

    def evaluate(self, model: Any, rows: Rows, generate: bool) -> BatchOutput:
        tensors = self.to_tensors(model, rows)
        with self.fast_products(model):
            logits = class_logits(model, tensors)
            loss = cross_entropy(logits, tensors["labels"], self.loss_fn.smoothing)
        return BatchOutput(loss, len(rows), logits.argmax(dim=-1).tolist())

    def predict(self, model: Any, inputs: Sequence[Any]) -> list[ClassPrediction]:
        batch = on_device(model, self.collate_inputs(inputs))
        device = next(model.parameters()).device
        with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            logits = class_logits(model, batch)
        return [self._as_class(row) for row in logits.float().softmax(dim=-1).tolist()]

    def collate_inputs(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        """Collate new inputs, which have no labels."""
        batch: dict[str, Tensor] = self.collator.pad_sources(inputs)
        return batch

    def _as_class(self, probabilities: list[float]) -> ClassPrediction:
        by_name = dict(zip(self.task.label_names, probabilities, strict=True))
        label = max(by_name, key=by_name.__getitem__)
        return ClassPrediction(label, by_name[label], by_name)


class Classification(TaskType):
    """One or two texts in, a class out."""

    kind = "classification"
    step = ClassificationStep

    def build_collator(self, task: Task, tokenizer: Any, config: Any) -> Collator:
        return Collator(tokenizer.pad_token_id, longest=count_positions(config))

    def build_loss(self, smoothing: float) -> Loss:
        return ClassificationLoss(smoothing)
