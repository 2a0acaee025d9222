"""Evaluate a model on a split: loss, predictions and the task's metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from unipeft_run.config.schema import DecodingConfig
from unipeft_run.data.batching import Batches, Collator, pack_batches, round_up
from unipeft_run.data.encoding import lengths
from unipeft_run.data.tasks.base import SequenceTask, Task
from unipeft_run.evaluation.generation import can_generate, describe, encode, generate
from unipeft_run.evaluation.generation.onednn import onednn_linears
from unipeft_run.evaluation.outputs import Outputs, merge
from unipeft_run.evaluation.texts import References, decode_texts, generation_token_ids
from unipeft_run.tracking import Progress, no_progress
from unipeft_run.training.distributed.parallel import is_sharded
from unipeft_run.training.losses import Loss, class_logits, cross_entropy


@dataclass(frozen=True)
class EvalResult:
    """The result of evaluating one split.

    Args:
        metrics: "loss" and, if there are predictions, the task's metrics.
        rows: id, prediction, reference and score of every example, in the split's order.
        signatures: how each metric was computed.
        companion_rows: rows of other splits that the task evaluates together with this one.
    """

    metrics: dict[str, float]
    rows: list[dict[str, Any]] = field(default_factory=list)
    signatures: dict[str, str] = field(default_factory=dict)
    companion_rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class Evaluator:
    """evaluator(model, split) -> EvalResult, independent of the number of processes.

    The loss is teacher-forced and averaged over the split's target tokens (in classification:
    examples). `autocast` applies to the loss; text is generated without it. Texts are decoded in
    a thread while the next batch is generated. `batch_size` is the size of the batch of the longest
    sources; batches of shorter ones are larger and need as much memory.

    `references` is "raw" for the texts of the data set. With "reference_code", as in the paper's
    code, references are decoded from the truncated label ids, and punctuation is joined to the
    preceding word in references and predictions.
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
        decoding: DecodingConfig | None = None,
        references: References = "raw",
        autocast: torch.dtype | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self.task, self.splits, self.encoded = task, splits, encoded
        self.tokenizer, self.collator, self.loss_fn = tokenizer, collator, loss_fn
        self.batch_size, self.decoding, self.references = batch_size, decoding, references
        self.autocast, self.progress = autocast, progress
        if isinstance(task, SequenceTask):
            if decoding is None:
                raise ValueError(f"task {task.name} generates text: evaluation.decoding is missing")
            ids = generation_token_ids(task, tokenizer, collator.decoder_start)
            self.generation = {**decoding.model_dump(), **ids}

    def __call__(
        self, model: nn.Module, split: str, limit: int | None = None, *, generate: bool = True
    ) -> EvalResult:
        """Evaluate the first `limit` examples of `split`; `generate=False` skips generation.

        Without a limit, also evaluate the task's companions of this split. Restores the model's
        training mode.
        """
        result = self._evaluate(model, split, limit, generate)
        companions = self.task.companions.get(split, {}) if limit is None else {}
        for suffix, companion in companions.items():
            examples = self.splits.get(companion.split, ())
            if len(examples) > (companion.limit or 0):
                other = self._evaluate(model, companion.split, companion.limit, generate)
                result.metrics.update({f"{k}_{suffix}": v for k, v in other.metrics.items()})
                if companion.split != split:
                    result.companion_rows[companion.split] = other.rows
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
            with torch.no_grad():  # FSDP could not train on weights gathered in inference mode
                outputs = self._run(model, encoded, split, generate)
        finally:
            model.train(training)
        return self._result(outputs, raw, encoded, self._decoding_signature(model))

    def _run(self, model: nn.Module, encoded: Dataset, split: str, generate: bool) -> Outputs:
        state, outputs = PartialState(), Outputs()
        batches = self._batches(encoded, generate)
        decoder = ThreadPoolExecutor(1, thread_name_prefix="decode-predictions")
        with decoder, self.progress(split, len(encoded)) as advance:
            for first in range(0, len(batches), state.num_processes):
                index = first + state.process_index
                if index < len(batches):
                    self._add(outputs, model, encoded, batches[index], generate, decoder)
                elif is_sharded(model):  # other processes wait for this one's shards
                    self._add(Outputs(), model, encoded, batches[-1], generate, decoder)
                advance(sum(map(len, batches[first : first + state.num_processes])))
        outputs.collect()
        return merge(gather_object([outputs]))

    def _batches(self, encoded: Dataset, generate: bool) -> Batches:
        """Batch examples by length, longest first, so that running out of memory shows at once.

        An example counts as its padded source and the longest target, because keys and values of
        both are held; while generating, every beam has a target.
        """
        sources = lengths(encoded, "input_ids")
        padded = round_up(sources, self.collator.multiple)
        positions = padded + self._target_positions(encoded, generate)
        order = np.argsort(-sources, kind="stable").tolist()
        return pack_batches(order, positions, self.batch_size * int(positions.max(initial=0)))

    def _target_positions(self, encoded: Dataset, generate: bool) -> int:
        if not isinstance(self.task, SequenceTask):
            return 0
        if generate:
            assert self.decoding is not None
            return self.decoding.num_beams * self.decoding.find_longest()
        return int(lengths(encoded, "labels").max(initial=0))

    def _add(
        self,
        outputs: Outputs,
        model: nn.Module,
        encoded: Dataset,
        batch: list[int],
        generate: bool,
        decoder: ThreadPoolExecutor,
    ) -> None:
        device = next(model.parameters()).device
        rows = self.collator([encoded[index] for index in batch])
        tensors = {name: tensor.to(device) for name, tensor in rows.items()}
        if isinstance(self.task, SequenceTask):
            loss, count, tokens = self._evaluate_text(model, tensors, generate)
            if tokens is not None:
                outputs.add_pending(batch, decoder.submit(self._decode, tokens.tolist()))
        else:
            with self._fast_products(model, device):
                logits = class_logits(model, tensors)
                loss = cross_entropy(logits, tensors["labels"], self.loss_fn.smoothing)
                count = len(batch)
            classes = logits.argmax(dim=-1).tolist()
            outputs.predictions.update(zip(batch, classes, strict=True))
        outputs.add_loss(loss.item(), count)

    def _evaluate_text(
        self, model: Any, tensors: Mapping[str, Tensor], generates: bool
    ) -> tuple[Tensor, int, Tensor | None]:
        """Return the loss, the number of target tokens and, if `generates`, the generated tokens.

        The encoder runs once for loss and text, unless autocast or sharding makes them differ.
        """
        sources: dict[str, Any] = {n: tensors[n] for n in ("input_ids", "attention_mask")}
        states, inputs = None, dict[str, Any](tensors)
        if generates and self.autocast is None and can_generate(model):
            states = encode(model, **sources)
            inputs["encoder_outputs"] = (states,)
        with self._fast_products(model, sources["input_ids"].device):
            loss, targets = self.loss_fn(model, inputs)
        count = int(targets)
        if not generates:
            return loss, count, None
        tokens = generate(model, **sources, decoding=self.generation, encoder_states=states)
        return loss, count, tokens

    @contextmanager
    def _fast_products(self, model: nn.Module, device: torch.device) -> Iterator[None]:
        """Use autocast, if any, and otherwise the fastest float32 products of a CPU."""
        enabled = self.autocast is not None
        with (
            torch.autocast(device.type, self.autocast, enabled=enabled),
            onednn_linears(model, products=1),
        ):
            yield

    def _decode(self, tokens: list[list[int]]) -> list[str]:
        return decode_texts(self.tokenizer, tokens, self.references)

    def _decoding_signature(self, model: nn.Module) -> dict[str, str]:
        """Return the signature of the decoding, with the rules that were followed."""
        if self.decoding is None:
            return {}
        return {"decoding": describe(model, self.decoding)}

    def _result(
        self, outputs: Outputs, raw: Dataset, encoded: Dataset, decoding: Mapping[str, str]
    ) -> EvalResult:
        metrics = {"loss": outputs.loss / outputs.count}
        if not outputs.predictions:
            return EvalResult(metrics)
        predictions = [outputs.predictions[index] for index in range(len(encoded))]
        references = self.task.references(raw)
        if self.references == "reference_code" and isinstance(self.task, SequenceTask):
            references = self._decode(encoded["labels"][:])
        scores = self.task.score(predictions, references)
        signatures = {**scores.signatures, "references": self.references, **decoding}
        names = "id", "prediction", "reference", "score"
        texts = self._name_classes(predictions), self._name_classes(references)
        rows = zip(self.task.ids(raw), *texts, scores.per_example, strict=True)
        return EvalResult(
            {**metrics, **scores.metrics},
            [dict(zip(names, r, strict=True)) for r in rows],
            signatures,
        )

    def _name_classes(self, values: list[Any]) -> list[str]:
        """Replace class numbers by class names; return texts unchanged."""
        names = self.task.label_names
        return [names[value] for value in values] if names else values
