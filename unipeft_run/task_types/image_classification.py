"""Image classification: one class for every image, from a vision backbone with a classifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from unipeft_run.data.images.batching import ImageCollator, ImageTransform, image_loader
from unipeft_run.data.tasks.base import Task
from unipeft_run.data.tasks.image_classification import ImageClassification as ImageTask
from unipeft_run.errors import UserError
from unipeft_run.task_types.base import TaskType
from unipeft_run.task_types.classification import ClassificationStep
from unipeft_run.task_types.image_processor import compare_normalisation, save_image_processor
from unipeft_run.training.compute.shapes import ROWS, RowGrid
from unipeft_run.training.losses import ClassificationLoss, Loss


class ImageClassificationStep(ClassificationStep):
    """Predicts the class with the largest logit."""

    def input_lengths(self, encoded: Dataset, generate: bool) -> NDArray[np.int64]:
        return np.ones(len(encoded), dtype=np.int64)

    def encode_inputs(self, model: Any, inputs: Mapping[str, list[str]]) -> list[Any]:
        """Decode the image files named in `inputs`. Raises UserError."""
        from unipeft_run.data.images.new_images import encode_files

        return encode_files(cast("ImageTask", self.task), inputs)

    def collate_inputs(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        return {"pixel_values": self.collator(inputs)["pixel_values"]}


class ImageClassification(TaskType):
    """An image in, a class out."""

    kind = "image_classification"
    step = ImageClassificationStep

    def load_tokenizer(self, source: str) -> None:
        """Return None: there is no text."""

    def build_collator(self, task: Task, tokenizer: Any, model: Any) -> ImageCollator:
        images = cast("ImageTask", task)
        check_size(images.image_size, model.config)
        transform = ImageTransform(images.image_size, images.resize, images.crop_scale, images.flip)
        return ImageCollator(transform, images.image_mean, images.image_std)

    def build_loss(self, smoothing: float) -> Loss:
        return ClassificationLoss(smoothing)

    def compare_preparation(self, task: Task, source: str) -> str | None:
        return compare_normalisation(cast("ImageTask", task), source)

    def save_processor(self, task: Task, tokenizer: Any, folder: Path) -> None:
        save_image_processor(cast("ImageTask", task), folder)

    def lengths(self, split: str, encoded: Dataset) -> Iterator[tuple[str, int]]:
        yield from ()

    def build_loader(
        self,
        encoded: Dataset,
        collator: Any,
        *,
        seed: int,
        batch_size: int | None,
        max_tokens: int | None,
    ) -> DataLoader[dict[str, Tensor]]:
        return image_loader(encoded, collator, seed=seed, batch_size=check_batch_size(batch_size))

    def build_grid(self, collator: Any, model: Any, batch_size: int | None) -> RowGrid:
        return RowGrid(batch_size or ROWS)


def check_size(size: int, config: Any) -> None:
    """Raise UserError if the backbone with `config` takes images of another size."""
    expected = getattr(config, "vision_config", config).image_size
    if size != expected:
        raise UserError(f"task.image_size={size}: this backbone takes images of {expected} pixels")


def check_batch_size(batch_size: int | None) -> int:
    """Return the number of examples in a batch. Raises UserError if it is given in tokens."""
    if batch_size is None:
        raise UserError("recipe.max_tokens: images have no tokens; give recipe.batch_size")
    return batch_size
