"""Evaluate a model on a split: loss, predictions and the task's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn

from unipeft_run.config.schema import DecodingConfig
from unipeft_run.data.tasks.base import Task
from unipeft_run.evaluation.outputs import Outputs, merge
from unipeft_run.evaluation.texts import References
from unipeft_run.task_types.registry import task_type_of
from unipeft_run.tracking import Progress, no_progress
from unipeft_run.training.distributed.parallel import is_sharded
from unipeft_run.training.losses import Loss


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
    sources; batches of shorter ones are larger and need as much memory. `graphs`: see
    `compute.graphs`. The task's type provides `step`, which evaluates one batch.

    `references` is "raw" for the texts of the data set. With "reference_code", as in the paper's
    code, references are decoded from the truncated label ids, and punctuation is joined to the
    preceding word in references and predictions.
    """

    def __init__(
        self,
        task: Task,
        splits: Mapping[str, Dataset],
        encoded: Mapping[str, Dataset],
        tokenizer: Any,
        *,
        collator: Any,
        loss_fn: Loss,
        batch_size: int,
        decoding: DecodingConfig | None = None,
        references: References = "raw",
        autocast: torch.dtype | None = None,
        graphs: bool | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self.task, self.splits, self.encoded = task, splits, encoded
        self.batch_size, self.progress = batch_size, progress
        self.step = task_type_of(task).step(
            task=task,
            tokenizer=tokenizer,
            collator=collator,
            loss_fn=loss_fn,
            decoding=decoding,
            references=references,
            autocast=autocast,
            graphs=graphs,
        )

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
        return self._result(model, split, outputs, raw, encoded)

    def _run(self, model: nn.Module, encoded: Dataset, split: str, generate: bool) -> Outputs:
        state, outputs = PartialState(), Outputs()
        batches = self.step.plan_batches(encoded, self.batch_size, generate)
        decoder = ThreadPoolExecutor(1, thread_name_prefix="decode-predictions")
        session = self.step.session(model)
        with decoder, session, self.progress(split, len(encoded)) as advance:
            for first in range(0, len(batches), state.num_processes):
                index = first + state.process_index
                if index < len(batches):
                    self._add(outputs, model, encoded, batches[index], generate, decoder)
                elif is_sharded(model):  # other processes wait for this one's shards
                    self._add(Outputs(), model, encoded, batches[-1], generate, decoder)
                advance(sum(map(len, batches[first : first + state.num_processes])))
        outputs.collect()
        return merge(gather_object([outputs]))

    def _add(
        self,
        outputs: Outputs,
        model: nn.Module,
        encoded: Dataset,
        batch: list[int],
        generate: bool,
        decoder: ThreadPoolExecutor,
    ) -> None:
        found = self.step.evaluate(model, [encoded[index] for index in batch], generate)
        if found.outputs is not None:
            outputs.add_pending(batch, decoder.submit(self.step.decode, found.outputs))
        outputs.add_loss(found.loss.item(), found.count)

    def _result(
        self, model: nn.Module, split: str, outputs: Outputs, raw: Dataset, encoded: Dataset
    ) -> EvalResult:
        places = range(len(encoded)) if outputs.predictions else ()
        found = [outputs.predictions[index] for index in places]
        references = self.step.read_references(raw, encoded) if found else []
        loss = self.step.split_loss(model, found, references)
        metrics = {"loss": outputs.loss / outputs.count if loss is None else loss}
        if not found:
            return EvalResult(metrics)
        predictions = self.step.finish(found)
        scores = self.task.score(predictions, references)
        computed = self.step.signatures(model)
        signatures = {**scores.signatures, "references": self.step.references, **computed}
        names = "id", "prediction", "reference", "score"
        texts = (
            self.task.name_predictions(predictions, raw),
            self.task.name_references(references, raw),
        )
        triples = zip(self.task.ids(raw), *texts, scores.per_example, strict=True)
        rows = [dict(zip(names, row, strict=True)) for row in triples]
        parts = {
            f"{split}_{name}": [rows[index] for index in indices]
            for name, indices in self.task.parts(raw).items()
        }
        return EvalResult({**metrics, **scores.metrics}, rows, signatures, parts)
