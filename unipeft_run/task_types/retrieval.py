"""Retrieval between texts and images or videos, with a backbone of two towers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from unipeft_run.data.batching import Collator
from unipeft_run.data.images.batching import (
    ImageCollator,
    ImageTransform,
    PairCollator,
    frame_counts,
    image_loader,
)
from unipeft_run.data.tasks.base import Task
from unipeft_run.data.tasks.retrieval import Retrieval as RetrievalTask
from unipeft_run.deltas.positions import count_free
from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics.retrieval import CHUNK, build_features
from unipeft_run.task_types.base import BatchOutput, EvaluationStep, Rows, TaskType
from unipeft_run.task_types.image_classification import check_batch_size, check_size
from unipeft_run.task_types.image_processor import compare_normalisation, save_image_processor
from unipeft_run.training.contrastive import ContrastiveLoss, encode_pairs, logit_scale, split_loss
from unipeft_run.training.distributed import processes
from unipeft_run.training.losses import Loss


class RetrievalStep(EvaluationStep):
    """Computes features of texts and videos; losses and ranks come from those of a whole split."""

    def evaluate(self, model: Any, rows: Rows, generate: bool) -> BatchOutput:
        tensors = self.to_tensors(model, rows)
        with self.fast_products(model):
            sides = encode_pairs(model, tensors)
        texts, videos = (side.float().cpu().numpy() for side in sides)
        return BatchOutput(torch.zeros(()), len(rows), list(zip(texts, videos, strict=True)))

    def split_loss(
        self, model: Any, outputs: Sequence[Any], references: Sequence[Any]
    ) -> float | None:
        """Return the contrastive loss of all texts and videos of the split."""
        features = build_features(outputs, references)
        sides = features.texts, features.videos, features.owners
        texts, videos, owners = map(torch.from_numpy, sides)
        scale = logit_scale(model).detach().float().cpu()
        return float(split_loss(texts, videos, owners, scale=scale, chunk=CHUNK))

    def predict(self, model: Any, inputs: Sequence[Any]) -> list[Any]:
        raise NotImplementedError("see Task.no_predictions")

    def input_lengths(self, encoded: Dataset, generate: bool) -> NDArray[np.int64]:
        return frame_counts(encoded)


class Retrieval(TaskType):
    """Texts and videos in, the features of both out."""

    kind = "retrieval"
    step = RetrievalStep

    def build_collator(self, task: Task, tokenizer: Any, model: Any) -> PairCollator:
        pairs = cast("RetrievalTask", task)
        check_size(pairs.image_size, model.config)
        transform = ImageTransform(pairs.image_size, pairs.image_size)
        images = ImageCollator(transform, pairs.image_mean, pairs.image_std)
        texts = Collator(tokenizer.pad_token_id, longest=count_free(model))
        return PairCollator(texts, images)

    def build_loss(self, smoothing: float) -> Loss:
        return ContrastiveLoss(smoothing)

    def compare_preparation(self, task: Task, source: str) -> str | None:
        return compare_normalisation(cast("RetrievalTask", task), source)

    def save_processor(self, task: Task, tokenizer: Any, folder: Path) -> None:
        super().save_processor(task, tokenizer, folder)
        save_image_processor(cast("RetrievalTask", task), folder)

    def build_loader(
        self,
        encoded: Dataset,
        collator: Any,
        *,
        seed: int,
        batch_size: int | None,
        max_tokens: int | None,
    ) -> DataLoader[dict[str, Tensor]]:
        """Return a loader of full batches, since pairs are compared within their batch."""
        size = check_batch_size(batch_size)
        if min(size, len(encoded)) < max(2, processes.world_size()):
            raise UserError(
                f"recipe.batch_size={size}, {len(encoded)} training examples: contrastive batches "
                "need two pairs, and one for each process"
            )
        return image_loader(encoded, collator, seed=seed, batch_size=size, drop_last=True)

    def build_grid(self, collator: Any, model: Any, batch_size: int | None) -> None:
        """Return None: padding would add pairs to compare with, and videos differ in frames."""
