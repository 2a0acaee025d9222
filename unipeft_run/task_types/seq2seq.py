"""Sequence to sequence: an encoder-decoder generates a text from a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from datasets import Dataset
from torch import nn

from unipeft_run.backbones.families import decoder_start
from unipeft_run.data.batching import Collator
from unipeft_run.data.encoding import lengths
from unipeft_run.data.tasks.base import Task
from unipeft_run.data.tasks.sequence import SequenceTask
from unipeft_run.deltas.positions import count_free
from unipeft_run.errors import UserError
from unipeft_run.evaluation.generation import (
    StepGraphs,
    can_generate,
    can_record,
    describe,
    encode,
    generate,
)
from unipeft_run.evaluation.texts import decode_texts, generation_token_ids
from unipeft_run.task_types.base import BatchOutput, EvaluationStep, Rows, TaskType, on_device
from unipeft_run.training.losses import Loss, SequenceLoss


@dataclass(kw_only=True)
class Seq2SeqStep(EvaluationStep):
    """Computes the teacher-forced loss, and generates texts.

    `generation` holds the decoding settings and token ids for `generate`. `steps` holds the
    decoder steps that a session on a GPU has recorded.
    """

    generation: dict[str, Any] = field(init=False)
    steps: StepGraphs | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.decoding is None:
            raise ValueError(
                f"task {self.task.name} generates text: evaluation.decoding is missing"
            )
        task, start = cast("SequenceTask", self.task), self.collator.decoder_start
        ids = generation_token_ids(task, self.tokenizer, start)
        if self.decoding.forced_bos and ids["bos_token_id"] is None:
            raise UserError(
                "evaluation.decoding.forced_bos=true: the backbone's tokenizer has no start token"
            )
        self.generation = {**self.decoding.model_dump(), **ids}

    @contextmanager
    def session(self, model: Any) -> Iterator[None]:
        """Record decoder steps as CUDA graphs inside, on a GPU and unless `graphs` is false."""
        if self.graphs is False or not can_record(model):
            yield
            return
        with StepGraphs(model) as self.steps:
            try:
                yield
            finally:
                self.steps = None

    def evaluate(self, model: Any, rows: Rows, generate: bool) -> BatchOutput:
        """Return the loss, the number of target tokens and the generated tokens.

        The encoder runs once for loss and text, unless autocast or sharding makes them differ.
        """
        inputs: dict[str, Any] = self.to_tensors(model, rows)
        sources = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        states = None
        if generate and self.autocast is None and can_generate(model):
            states = encode(model, **sources)
            inputs["encoder_outputs"] = (states,)
        with self.fast_products(model):
            loss, targets = self.loss_fn(model, inputs)
        count = int(targets)
        if not generate:
            return BatchOutput(loss, count)
        return BatchOutput(loss, count, self._generate(model, **sources, encoder_states=states))

    def predict(self, model: Any, inputs: Sequence[Any]) -> list[str]:
        batch = on_device(model, self.collator.pad_sources(inputs))
        return self.decode(self._generate(model, **batch))

    def decode(self, outputs: list[Any]) -> list[str]:
        return decode_texts(self.tokenizer, outputs, self.references)

    def read_references(self, raw: Dataset, encoded: Dataset) -> list[str]:
        if self.references == "reference_code":
            return self.decode(encoded["labels"][:])
        return super().read_references(raw, encoded)

    def signatures(self, model: nn.Module) -> dict[str, str]:
        """Return the signature of the decoding, with the rules that were followed."""
        assert self.decoding is not None
        return {"decoding": describe(model, self.decoding)}

    def added_positions(self, encoded: Dataset, generate: bool) -> int:
        """Count the longest target: keys and values of it are held too, for every beam."""
        if generate:
            assert self.decoding is not None
            return self.decoding.num_beams * self.decoding.find_longest()
        return int(lengths(encoded, "labels").max(initial=0))

    def _generate(self, model: Any, **inputs: Any) -> list[list[int]]:
        tokens = generate(model, **inputs, decoding=self.generation, graphs=self.steps)
        return tokens.tolist()  # type: ignore[no-any-return]


class Seq2Seq(TaskType):
    """A text in, a text out."""

    kind = "seq2seq"
    step = Seq2SeqStep

    def build_collator(self, task: Task, tokenizer: Any, model: Any) -> Collator:
        start = decoder_start(model.config)
        return Collator(tokenizer.pad_token_id, start, longest=count_free(model))

    def build_loss(self, smoothing: float) -> Loss:
        return SequenceLoss(smoothing)

    def lengths(self, split: str, encoded: Dataset) -> Iterator[tuple[str, int]]:
        yield from super().lengths(split, encoded)
        key = "max" if split == "train" else "eval"
        yield f"task.{key}_target_length", int(lengths(encoded, "labels").max())
