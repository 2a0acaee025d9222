"""Image classification: an image in, a class out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from unipeft_run.config.types import Range, Words
from unipeft_run.data.tasks.base import Kind
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.images import ImageTask
from unipeft_run.data.tasks.splits import Splits
from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics import Scores, accuracy

if TYPE_CHECKING:  # these take long to import
    from datasets import Dataset
    from PIL.Image import Image

LABELS = "labels.json"  # beside local data: the names of the classes, in the order of their numbers
MINI_LABELS = Path(__file__).parents[2] / "miniatures" / "labels"  # known before data is fetched


@dataclass(kw_only=True)
class ImageClassification(ImageTask):
    """Predict the class of an image.

    `labels` are the names of the classes, in order. In training, a random part of an image is cut
    out, with a share of its area between the bounds `crop_scale`, resized to `image_size`, and
    mirrored with probability 1/2 if `flip`. With `crop_scale` null, images are prepared as in
    evaluation. Images larger than `resize` are reduced to it before the random crop.
    """

    image_column: str = "image"
    label_column: str = "label"
    labels: Words | None = None
    crop_scale: Range | None = (0.08, 1.0)
    flip: bool = True
    selection: str = "accuracy"

    kind: ClassVar[Kind] = "image_classification"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_scale is not None and not self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError("task.crop_scale: must be two shares of the area, as in [0.08,1]")

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy",)

    @property
    def primary(self) -> str:
        return "accuracy"

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(self.labels or ())

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes where the data is. Raises `UserError`."""
        if self.path is not None:
            return read_label_names(Path(self.path) / LABELS)
        packaged = MINI_LABELS / f"{self.mini}.json"
        if self.mini is None or not packaged.is_file():
            raise UserError(f"task {self.name}: name the classes, as in task.labels=[cat,dog]")
        return read_label_names(packaged)

    @property
    def columns(self) -> Columns:
        keys = {self.image_column: "task.image_column", self.label_column: "task.label_column"}
        return Columns(
            (),
            self.label_column,
            self.label_names,
            self.id_column,
            keys=keys,
            images=self.image_column,
        )

    def references(self, dataset: Dataset) -> list[int]:
        return list(dataset[self.label_column])

    def score(self, predictions: Sequence[int], references: Sequence[int]) -> Scores:
        """Compute top-1 accuracy in percent."""
        return accuracy(predictions, references)

    @property
    def baseline_name(self) -> str:
        return "the class of the nearest mean colour"

    def baseline(self, splits: Splits) -> list[int]:
        from unipeft_run.data.images.colours import nearest_classes

        train = splits["train"]
        return nearest_classes(train, self.references(train), splits["test"])

    def prepare(self, image: Image) -> Image:
        """Reduce the shorter side to `resize`, so that the cache is no larger than necessary."""
        from unipeft_run.data.images.transforms import shrink_shorter

        return shrink_shorter(image, self.resize)

    def _encode_others(
        self, batch: Mapping[str, list[Any]], tokenizer: Any
    ) -> dict[str, list[Any]]:
        from unipeft_run.data.images.reading import IMAGES

        several = next((len(images) for images in batch[IMAGES] if len(images) != 1), None)
        if several is not None:
            raise UserError(
                f"task {self.name} classifies single images, but column {self.image_column!r} "
                f"holds {several} images for one example"
            )
        return {"labels": batch[self.label_column]}

    def _cache_key(self, tokenizer: Any) -> dict[str, Any]:
        return {"shrink": self.resize}


def read_label_names(file: Path) -> tuple[str, ...]:
    """Read a JSON list of class names, or `{"label": list}`. Raises `UserError`."""
    names: Any = None
    try:
        names = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(
            f"{file} cannot be read: {error.strerror}; it lists the names of the classes, as in "
            '["cat", "dog"], or give task.labels=[cat,dog]'
        ) from error
    except (ValueError, RecursionError):
        pass
    names = names.get("label") if isinstance(names, dict) else names
    valid = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    if not valid or len({name.casefold() for name in names}) < max(2, len(names)):
        raise UserError(f'{file}: must be a list of two or more different names, as in ["a", "b"]')
    return tuple(names)
