"""Predict texts or classes for new inputs: encode, batch by length, decode, keep the order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from unipeft_run.backbones.load import check_lengths
from unipeft_run.data.batching import Collator
from unipeft_run.data.new_inputs import encode_inputs
from unipeft_run.data.tasks.base import Task
from unipeft_run.evaluation.generation import generate
from unipeft_run.evaluation.texts import References, decode_texts
from unipeft_run.training.losses import class_logits

Inputs = Mapping[str, list[str]]  # input column -> its texts


class ClassPrediction(NamedTuple):
    """The predicted class by name, its probability, and the probability of every class."""

    label: str
    probability: float
    probabilities: dict[str, float]


def no_advance(items: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Predicts with one model and fixed settings.

    `generation` holds the decoding settings and token ids for `generate`; None for classification.
    `autocast` is the type in which classes are computed; text is generated without autocast.
    """

    model: Any
    task: Task
    tokenizer: Any
    collator: Collator
    batch_size: int
    generation: Mapping[str, Any] | None
    references: References
    autocast: torch.dtype | None

    def __call__(
        self, inputs: Inputs, advance: Callable[[int], None] = no_advance
    ) -> list[str] | list[ClassPrediction]:
        """Predict a text or a class for every example, in order.

        `advance` is called with the number of examples of every finished batch. Raises UserError
        for an input that is longer than the backbone's positions.
        """
        sources = encode_inputs(self.task, inputs, self.tokenizer)
        longest = max(map(len, sources), default=0)
        check_lengths([("task.max_source_length", longest)], self.model.config)
        predictions: dict[int, Any] = {}
        with _evaluating(self.model):
            for batch in self._batches(sources):
                found = self._predict_batch([sources[index] for index in batch])
                predictions.update(zip(batch, found, strict=True))
                advance(len(batch))
        return [predictions[index] for index in range(len(sources))]

    def _batches(self, sources: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Yield batches of example numbers, longest first."""
        order = sorted(range(len(sources)), key=lambda index: -len(sources[index]))
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def _predict_batch(self, sources: list[list[int]]) -> list[str] | list[ClassPrediction]:
        device = next(self.model.parameters()).device
        batch = {name: t.to(device) for name, t in self.collator.pad_sources(sources).items()}
        if self.generation is not None:
            ids, mask = batch["input_ids"], batch["attention_mask"]
            tokens = generate(
                self.model, input_ids=ids, attention_mask=mask, decoding=self.generation
            )
            return decode_texts(self.tokenizer, tokens.tolist(), self.references)
        with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            logits = class_logits(self.model, batch)
        return [self._as_class(row) for row in logits.float().softmax(dim=-1).tolist()]

    def _as_class(self, probabilities: list[float]) -> ClassPrediction:
        by_name = dict(zip(self.task.label_names, probabilities, strict=True))
        label = max(by_name, key=by_name.__getitem__)
        return ClassPrediction(label, by_name[label], by_name)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Put the model in eval mode without gradients; restore its training mode."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
