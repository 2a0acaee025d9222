"""Evaluation of a model on a split: the loss, predictions, and the task's scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from unipeft_run.data.batching import Collator
from unipeft_run.data.encoding import lengths
from unipeft_run.data.tasks.base import SequenceTask, Task
from unipeft_run.data.tasks.languages import language_code_id
from unipeft_run.evaluation.decoding import Decoding, only
from unipeft_run.training.distributed.parallel import is_sharded
from unipeft_run.training.losses import Loss, class_logits, cross_entropy

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def no_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows nothing."""
    del description, total
    yield lambda count: None


@dataclass(frozen=True)
class EvalResult:
    """`metrics`: "loss" and, with predictions, the task's; `rows`: id, prediction, reference and
    score of every example, in the split's order; `signatures`: how each metric came about;
    `beside`: the rows of other splits that were evaluated with this one."""

    metrics: dict[str, float]
    rows: list[dict[str, Any]] = field(default_factory=list)
    signatures: dict[str, str] = field(default_factory=dict)
    beside: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass
class _Outputs:
    """What one process found: the summed loss of `count` targets, a prediction by example."""

    loss: float = 0.0
    count: int = 0
    predictions: dict[int, Any] = field(default_factory=dict)


class Evaluator:
    """evaluator(model, split) -> EvalResult, the same for any number of processes.

    The loss is teacher-forced, per target token (per example for classes), of the whole split,
    under `autocast` where a type is given; text is generated without. `references`:
    "raw" texts, or "reference_code", as in the paper's code: the truncated label ids, decoded;
    there punctuation is joined to the word before it, in predictions too.
    """

    def __init__(
        self,
        task: Task,
        splits: Mapping[str, Dataset],
        encoded: Mapping[str, Dataset],
        tokenizer: PreTrainedTokenizerBase,
        *,
        collator: Collator,
        loss_fn: Loss,
        batch_size: int,
        decoding: Decoding | None = None,
        references: Literal["raw", "reference_code"] = "raw",
        autocast: torch.dtype | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self.task, self.splits, self.encoded = task, splits, encoded
        self.tokenizer, self.collator, self.loss_fn = tokenizer, collator, loss_fn
        self.batch_size, self.decoding, self.references = batch_size, decoding, references
        self.autocast, self.progress = autocast, progress
        if isinstance(task, SequenceTask):
            if decoding is None:
                raise ValueError(f"task {task.name} generates text: evaluation.decoding is needed")
            self.generation = decoding.config(tokenizer, self._decoder_start(task))

    def __call__(
        self, model: nn.Module, split: str, limit: int | None = None, *, generate: bool = True
    ) -> EvalResult:
        """Evaluate the first `limit` examples of `split`, without predictions of text if not
        `generate`, and what the task wants to see beside the whole split. The model is left in
        the mode it was in."""
        result = self._evaluate(model, split, limit, generate)
        for name, beside in self.task.beside.get(split, {}).items() if limit is None else ():
            examples = self.splits.get(beside.split, ())
            if len(examples) > (beside.limit or 0):
                more = self._evaluate(model, beside.split, beside.limit, generate)
                result.metrics.update({f"{key}_{name}": more.metrics[key] for key in more.metrics})
                if beside.split != split:
                    result.beside[beside.split] = more.rows
        return result

    def _evaluate(
        self, model: nn.Module, split: str, limit: int | None, generate: bool
    ) -> EvalResult:
        raw, encoded = self.splits[split], self.encoded[split]
        if limit is not None and limit < len(encoded):
            raw, encoded = raw.select(range(limit)), encoded.select(range(limit))
        training = model.training
        model.eval()
        try:
            with torch.no_grad():  # what FSDP gathers in inference mode could not be trained on
                outputs = self._run(model, encoded, split, generate)
        finally:
            model.train(training)
        return self._result(outputs, raw, encoded)

    def _decoder_start(self, task: SequenceTask) -> int:
        if isinstance(self.collator.decoder_start, int):
            return self.collator.decoder_start
        code = language_code_id(self.tokenizer, task.language_codes[1])
        # a target without a language code ends with </s>, which rotation puts first
        return int(self.tokenizer.eos_token_id if code is None else code)

    def _run(self, model: nn.Module, encoded: Dataset, split: str, generate: bool) -> _Outputs:
        state, outputs = PartialState(), _Outputs()
        batches = self._batches(encoded)
        with self.progress(split, len(encoded)) as advance:
            for first in range(0, len(batches), state.num_processes):
                number = first + state.process_index
                if number < len(batches):
                    self._add(outputs, model, encoded, batches[number], generate)
                elif is_sharded(model):  # the others cannot do without this process
                    self._add(_Outputs(), model, encoded, batches[-1], generate)
                advance(sum(map(len, batches[first : first + state.num_processes])))
        return _joined(gather_object([outputs]))

    def _batches(self, encoded: Dataset) -> list[list[int]]:
        """Examples of like length together, the longest first: a lack of memory shows at once."""
        order = np.argsort(-lengths(encoded, "input_ids"), kind="stable").tolist()
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def _add(
        self,
        outputs: _Outputs,
        model: nn.Module,
        encoded: Dataset,
        batch: list[int],
        generate: bool,
    ) -> None:
        device = next(model.parameters()).device
        rows = self.collator([encoded[index] for index in batch])
        tensors = {name: tensor.to(device) for name, tensor in rows.items()}
        with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            if isinstance(self.task, SequenceTask):
                (loss, count), predictions = self.loss_fn(model, tensors), []
            else:
                logits = class_logits(model, tensors)
                loss = cross_entropy(logits, tensors["labels"], self.loss_fn.smoothing)
                count = len(batch)
                predictions = logits.argmax(dim=-1).tolist()
        if generate and isinstance(self.task, SequenceTask):
            predictions = self._generate(model, tensors)
        outputs.loss += loss.item() * count
        outputs.count += count
        outputs.predictions.update(zip(batch, predictions, strict=False))

    def _generate(self, model: Any, tensors: Mapping[str, Tensor]) -> list[str]:
        with only(self.generation, model):
            tokens = model.generate(
                input_ids=tensors["input_ids"],
                attention_mask=tensors["attention_mask"],
                generation_config=self.generation,
                synced_gpus=is_sharded(model),
            )
        return self._decode(tokens.tolist())

    def _decode(self, tokens: list[list[int]]) -> list[str]:
        texts = self.tokenizer.batch_decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        if self.references == "reference_code":
            texts = [self.tokenizer.clean_up_tokenization(text) for text in texts]
        return [text.strip() for text in texts]

    def _result(self, outputs: _Outputs, raw: Dataset, encoded: Dataset) -> EvalResult:
        metrics = {"loss": outputs.loss / outputs.count}
        if not outputs.predictions:
            return EvalResult(metrics)
        predictions = [outputs.predictions[index] for index in range(len(encoded))]
        references = self.task.references(raw)
        if self.references == "reference_code" and isinstance(self.task, SequenceTask):
            references = self._decode(encoded["labels"][:])
        scores = self.task.score(predictions, references)
        signatures = {**scores.signatures, "references": self.references}
        if self.decoding is not None:
            signatures["decoding"] = self.decoding.signature
        columns = self.task.ids(raw), self._named(predictions), self._named(references)
        names = "id", "prediction", "reference", "score"
        rows = zip(*columns, scores.per_example, strict=True)
        return EvalResult(
            {**metrics, **scores.metrics},
            [dict(zip(names, r, strict=True)) for r in rows],
            signatures,
        )

    def _named(self, values: list[Any]) -> list[str]:
        """Classes by name; texts as they are."""
        names = self.task.label_names
        return [names[value] for value in values] if names else values


def _joined(parts: list[_Outputs]) -> _Outputs:
    """The outputs of all processes, whose examples are disjoint."""
    joined = _Outputs()
    for part in parts:
        joined.loss, joined.count = joined.loss + part.loss, joined.count + part.count
        joined.predictions |= part.predictions
    return joined
