"""Predict texts or classes for new inputs: encode, batch by length, decode, keep the order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from unipeft_run.task_types.base import EvaluationStep

Inputs = Mapping[str, list[str]]  # input column -> its texts


def no_advance(items: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Predictor:
    """Predicts with one model and the settings of one `EvaluationStep`."""

    model: Any
    step: EvaluationStep
    batch_size: int

    @property
    def generation(self) -> dict[str, Any] | None:
        """The decoding settings and token ids for `generate`; None if no text is generated."""
        return getattr(self.step, "generation", None)

    @property
    def collator(self) -> Any:
        return self.step.collator

    def __call__(self, inputs: Inputs, advance: Callable[[int], None] = no_advance) -> list[Any]:
        """Predict a text or a `ClassPrediction` for every example, in order.

        `advance` is called with the number of examples of every finished batch. Raises UserError
        for an input that is longer than the backbone's positions.
        """
        if not any(inputs.values()):
            return []
        sources = self.step.encode_inputs(self.model, inputs)
        predictions: dict[int, Any] = {}
        with _evaluating(self.model), self.step.session(self.model):
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

    def _predict_batch(self, sources: Sequence[Any]) -> list[Any]:
        return self.step.predict(self.model, sources)


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
