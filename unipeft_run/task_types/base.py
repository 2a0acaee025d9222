"""The interface of task types, and of the steps that evaluate and predict batches."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from unipeft_run.backbones.load import check_lengths, load_tokenizer
from unipeft_run.config.schema import DecodingConfig
from unipeft_run.data.batching import Batches, pack_batches, round_up, train_loader
from unipeft_run.data.encoding import lengths
from unipeft_run.data.new_inputs import encode_inputs
from unipeft_run.data.tasks.base import Task, TextTask
from unipeft_run.deltas.positions import count_free, count_occupied
from unipeft_run.evaluation.generation.onednn import onednn_linears
from unipeft_run.evaluation.texts import References
from unipeft_run.training.compute.shapes import ROWS, BatchGrid, ShapeGrid
from unipeft_run.training.losses import Loss

Rows = Sequence[Mapping[str, Any]]  # encoded examples


@dataclass(frozen=True)
class BatchOutput:
    """The output for one batch: mean loss of `count` targets, and outputs to `decode`, if any."""

    loss: Tensor
    count: int
    outputs: list[Any] | None = None


@dataclass(kw_only=True)
class EvaluationStep(ABC):
    """Evaluates and predicts batches of one task with fixed settings.

    `tokenizer` is what encodes the task's examples. `autocast` applies to the loss and to classes;
    text is generated without it. `references`: see `Evaluator`. `graphs`: see `compute.graphs`.
    """

    task: Task
    tokenizer: Any
    collator: Any
    loss_fn: Loss
    decoding: DecodingConfig | None = None
    references: References = "raw"
    autocast: torch.dtype | None = None
    graphs: bool | None = None

    def session(self, model: Any) -> AbstractContextManager[object]:
        """Return the context of all calls for one split, in which the model does not change."""
        del model
        return nullcontext()

    @abstractmethod
    def evaluate(self, model: Any, rows: Rows, generate: bool) -> BatchOutput:
        """Return the loss of a batch and, if `generate` or if they cost nothing, its outputs."""

    @abstractmethod
    def predict(self, model: Any, inputs: Sequence[Any]) -> list[Any]:
        """Return what `LoadedRun.predict` returns for new inputs, encoded by `encode_inputs`."""

    def decode(self, outputs: list[Any]) -> list[Any]:
        """Turn the outputs of a batch into predictions. Called in a thread, without a model."""
        return outputs

    def finish(self, predictions: list[Any]) -> list[Any]:
        """Turn the decoded outputs of a whole split, in its order, into predictions to score."""
        return predictions

    def read_references(self, raw: Dataset, encoded: Dataset) -> list[Any]:
        """Return the references that predictions of this split are scored against."""
        return self.task.references(raw)

    def split_loss(
        self, model: Any, outputs: Sequence[Any], references: Sequence[Any]
    ) -> float | None:
        """Return the loss of a split that is not the mean over its batches; None if it is."""
        return None

    def signatures(self, model: nn.Module) -> dict[str, str]:
        """Return how predictions were computed, by name."""
        return {}

    def encode_inputs(self, model: Any, inputs: Mapping[str, list[str]]) -> list[Any]:
        """Encode new inputs. Raises UserError for one longer than the backbone's positions."""
        sources = encode_inputs(self.task, inputs, self.tokenizer)
        if sources:
            check_lengths(self.input_limits(sources), model.config, count_occupied(model))
        return sources

    def input_limits(self, sources: Sequence[Any]) -> Iterator[tuple[str, int]]:
        """Yield keys that limit positions, with the most that the encoded `sources` need."""
        yield "task.max_source_length", max(map(len, sources))

    def plan_batches(self, encoded: Dataset, batch_size: int, generate: bool) -> Batches:
        """Batch examples by length, longest first, so that running out of memory shows at once.

        `batch_size` is the size of the batch of the longest examples; batches of shorter ones are
        larger and need as much memory.
        """
        inputs = self.input_lengths(encoded, generate)
        positions = round_up(inputs, self.collator.multiple)
        positions = positions + self.added_positions(encoded, generate)
        order = np.argsort(-inputs, kind="stable").tolist()
        return pack_batches(order, positions, batch_size * int(positions.max(initial=0)))

    def input_lengths(self, encoded: Dataset, generate: bool) -> NDArray[np.int64]:
        """Return the number of input positions of every example."""
        return lengths(encoded, "input_ids")

    def added_positions(self, encoded: Dataset, generate: bool) -> int:
        """Return the most positions that an example needs in addition to its inputs."""
        return 0

    def to_tensors(self, model: Any, rows: Rows) -> dict[str, Tensor]:
        """Collate `rows` into tensors on the model's device."""
        return on_device(model, self.collator(rows))

    @contextmanager
    def fast_products(self, model: nn.Module) -> Iterator[None]:
        """Use autocast, if any, and otherwise the fastest float32 products of a CPU."""
        device = next(model.parameters()).device
        with (
            torch.autocast(device.type, self.autocast, enabled=self.autocast is not None),
            onednn_linears(model, products=1),
        ):
            yield


class TaskType(ABC):
    """One type of task. The methods build the parts of a run that depend on the type.

    Args:
        kind: its name, as in `Task.kind` and `Family.task_type`.
        step: the class that evaluates and predicts.
    """

    kind: ClassVar[str]
    step: ClassVar[type[EvaluationStep]]

    @abstractmethod
    def build_collator(self, task: Task, tokenizer: Any, model: Any) -> Any:
        """Return the collator of training and evaluation batches for `model`."""

    @abstractmethod
    def build_loss(self, smoothing: float) -> Loss:
        """Return the training loss, which is also the loss of evaluations."""

    def load_tokenizer(self, source: str) -> Any:
        """Load what encodes the examples from the backbone at `source`."""
        return load_tokenizer(source)

    def compare_preparation(self, task: Task, source: str) -> str | None:
        """Return a warning if `task` prepares inputs differently from the backbone at `source`."""
        del task, source
        return None

    def save_processor(self, task: Task, tokenizer: Any, folder: Path) -> None:
        """Write to `folder` what transformers needs to prepare inputs as the task does."""
        own = copy.deepcopy(tokenizer)
        own.model_max_length = cast("TextTask", task).max_source_length
        codes = getattr(task, "language_codes", None)
        if codes and hasattr(own, "src_lang"):
            own.src_lang, own.tgt_lang = codes
        own.save_pretrained(folder)

    def lengths(self, split: str, encoded: Dataset) -> Iterator[tuple[str, int]]:
        """Yield length keys of the task with the longest example of `split` that they allow."""
        yield "task.max_source_length", int(lengths(encoded, "input_ids").max())

    def output_lengths(
        self, decoding: DecodingConfig | None, encoded: Mapping[str, Dataset]
    ) -> Iterator[tuple[str, int]]:
        """Yield keys that limit outputs, with the most positions that a prompt and its output need.

        `encoded`: the splits by name. Those that are only trained on have no outputs.
        """
        if decoding is not None:
            yield f"evaluation.decoding.{decoding.length_key}", decoding.find_longest()

    def build_loader(
        self,
        encoded: Dataset,
        collator: Any,
        *,
        seed: int,
        batch_size: int | None,
        max_tokens: int | None,
    ) -> DataLoader[dict[str, Tensor]]:
        """Return the loader of training batches."""
        return train_loader(
            encoded, collator, seed=seed, batch_size=batch_size, max_tokens=max_tokens
        )

    def build_grid(self, collator: Any, model: Any, batch_size: int | None) -> BatchGrid | None:
        """Return the batch shapes for CUDA graphs; None if there are no fixed shapes."""
        return ShapeGrid(collator.pad_token_id, batch_size or ROWS, count_free(model))


def on_device(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy `batch` to the device of `model`."""
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in batch.items()}
