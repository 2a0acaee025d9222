"""Causal language modelling: a decoder-only model continues a prompt with a response."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import nn

from unipeft_run.config.schema import DecodingConfig
from unipeft_run.data.causal_batches import CausalCollator
from unipeft_run.data.encoding import lengths
from unipeft_run.data.tasks.base import Task
from unipeft_run.data.tasks.causal import CausalTask
from unipeft_run.deltas.positions import count_free
from unipeft_run.evaluation.generation import describe, generate
from unipeft_run.evaluation.metrics.choices import Likelihoods
from unipeft_run.evaluation.texts import decode_texts
from unipeft_run.task_types.base import BatchOutput, EvaluationStep, Rows, TaskType, on_device
from unipeft_run.training.causal_loss import CausalLoss, log_likelihoods
from unipeft_run.training.losses import Loss

PROMPT, CHOICE = "task.max_source_length", "task.max_source_length + the longest choice"


@dataclass(kw_only=True)
class CausalStep(EvaluationStep):
    """Computes the teacher-forced loss, and generates responses or compares likelihoods.

    Prompts are padded on the left for generation, and examples on the right for losses. Token ids
    of `generation` come from the tokenizer.
    """

    generation: dict[str, Any] | None = field(init=False)

    def __post_init__(self) -> None:
        self.generation = None
        if cast("CausalTask", self.task).decides_by == "likelihood":
            return
        if self.decoding is None:
            raise ValueError(
                f"task {self.task.name} generates text: evaluation.decoding is missing"
            )
        ids = {
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.collator.pad_token_id,
        }
        self.generation = {**self.decoding.model_dump(exclude_none=True), **ids}

    def evaluate(self, model: Any, rows: Rows, generate: bool) -> BatchOutput:
        with self.fast_products(model):
            loss, targets = self.loss_fn(model, self.to_tensors(model, rows))
        if not generate:
            return BatchOutput(loss, int(targets))
        prompts = [row["input_ids"][: row["prompt_length"]] for row in rows]
        if self.generation is not None:
            return BatchOutput(loss, int(targets), self._generate(model, prompts))
        choices = [row["choices"] for row in rows]
        return BatchOutput(loss, int(targets), self._compare(model, prompts, choices))

    def predict(self, model: Any, inputs: Sequence[Any]) -> list[str]:
        """Return the response to each prompt: generated, or the most likely of those given."""
        if self.generation is not None:
            return self.decode(self._generate(model, inputs))
        prompts, choices = [item[0] for item in inputs], [item[1:] for item in inputs]
        best = [found.best() for found in self._compare(model, prompts, choices)]
        chosen = [row[place] for row, place in zip(choices, best, strict=True)]
        return decode_texts(self.tokenizer, chosen, "raw")

    def decode(self, outputs: list[Any]) -> list[Any]:
        if self.generation is None:
            return outputs
        return decode_texts(self.tokenizer, outputs, "raw")

    def signatures(self, model: nn.Module) -> dict[str, str]:
        """Return the signature of the decoding, with the rules that were followed."""
        if self.generation is None or self.decoding is None:
            return {}
        return {"decoding": describe(model, self.decoding)}

    def input_limits(self, sources: Sequence[Any]) -> Iterator[tuple[str, int]]:
        """Yield the longest prompt, and the longest one with its response or longest choice."""
        if self.generation is None or self.decoding is None:
            yield PROMPT, max(len(prompt) for prompt, *_ in sources)
            yield CHOICE, max(len(prompt) + max(map(len, rest)) for prompt, *rest in sources)
            return
        yield from super().input_limits(sources)
        longest = self.decoding.find_longest(max(map(len, sources)))
        yield f"evaluation.decoding.{self.decoding.length_key}", longest

    def input_lengths(self, encoded: Dataset, generate: bool) -> NDArray[np.int64]:
        """Count the example itself, or one copy of the prompt for every choice."""
        if not generate or self.generation is not None:
            return lengths(encoded, "input_ids")
        pairs = zip(encoded["prompt_length"], encoded["choices"], strict=True)
        return np.array([n * len(choices) + sum(map(len, choices)) for n, choices in pairs])

    def added_positions(self, encoded: Dataset, generate: bool) -> int:
        """Count the generated tokens of every beam."""
        if not generate or self.generation is None or self.decoding is None:
            return 0
        return self.decoding.num_beams * self.decoding.find_longest(0)

    def _generate(self, model: Any, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        batch = on_device(model, self.collator.pad_prompts(prompts))
        ids, mask = batch["input_ids"], batch["attention_mask"]
        assert self.generation is not None
        tokens = generate(model, input_ids=ids, attention_mask=mask, decoding=self.generation)
        found: list[list[int]] = tokens[:, ids.size(1) :].tolist()
        return found

    def _compare(
        self, model: Any, prompts: Sequence[Sequence[int]], choices: Sequence[Any]
    ) -> list[Likelihoods]:
        """Return the log-likelihoods of the choices of each prompt."""
        rows = [
            {"input_ids": [*prompt, *choice], "prompt_length": len(prompt)}
            for prompt, several in zip(prompts, choices, strict=True)
            for choice in several
        ]
        with self.fast_products(model):
            batch = on_device(model, self.collator.collate(rows, "response"))
            sums, counts = log_likelihoods(model, batch)
        sizes = [len(several) for several in choices]
        pairs = zip(torch.split(sums, sizes), torch.split(counts, sizes), strict=True)
        return [Likelihoods(total.tolist(), count.tolist()) for total, count in pairs]


class Causal(TaskType):
    """A prompt in, a response out."""

    kind = "causal"
    step = CausalStep

    def build_collator(self, task: Task, tokenizer: Any, model: Any) -> CausalCollator:
        """Return a collator.

        Without a padding token, as in Llama's tokenizer, rows are padded with eos.
        """
        pad = tokenizer.pad_token_id
        pad = tokenizer.eos_token_id if pad is None else pad
        loss_on = cast("CausalTask", task).loss_on
        return CausalCollator(pad, longest=count_free(model), loss_on=loss_on)

    def build_loss(self, smoothing: float) -> Loss:
        return CausalLoss(smoothing)

    def save_processor(self, task: Task, tokenizer: Any, folder: Path) -> None:
        """Write the tokenizer, set to pad on the left."""
        own, lengths = copy.deepcopy(tokenizer), cast("CausalTask", task)
        own.model_max_length = lengths.max_source_length + lengths.max_target_length
        own.padding_side = own.init_kwargs["padding_side"] = "left"
        if own.pad_token is None:
            own.pad_token = own.eos_token
        own.save_pretrained(folder)

    def output_lengths(
        self, decoding: DecodingConfig | None, encoded: Mapping[str, Dataset]
    ) -> Iterator[tuple[str, int]]:
        held_out = [split for name, split in encoded.items() if name != "train"]
        for split in held_out or encoded.values():  # train alone is evaluated
            if "choices" in split.column_names:
                pairs = zip(split["prompt_length"], split["choices"], strict=True)
                yield CHOICE, max(n + max(map(len, choices)) for n, choices in pairs)
            elif decoding is not None:
                longest = decoding.find_longest(max(split["prompt_length"], default=1))
                yield f"evaluation.decoding.{decoding.length_key}", longest

    def lengths(self, split: str, encoded: Dataset) -> Iterator[tuple[str, int]]:
        longest = int(lengths(encoded, "input_ids").max())
        yield "task.max_source_length + task.max_target_length", longest
