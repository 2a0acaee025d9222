"""The interface of tasks on images: how images are read, prepared, cached and normalised."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from unipeft_run.config.types import Channels, Count
from unipeft_run.data.images.source import ImageSource
from unipeft_run.data.tasks.base import Task
from unipeft_run.data.tasks.splits import Splits
from unipeft_run.errors import UserError
from unipeft_run.tracking import Progress, no_progress

if TYPE_CHECKING:  # these take long to import
    from datasets import Dataset
    from PIL.Image import Image


@dataclass(kw_only=True)
class ImageTask(Task):
    """A task that reads images, or videos as lists of images.

    In evaluation, an image's shorter side is resized to `resize` pixels, and a centre crop of
    `image_size` pixels is taken. `image_mean` and `image_std` normalise red, green and blue,
    which are numbers from 0 to 1. `id_column` names the column of ids, which the data may lack.
    """

    image_column: str
    id_column: str = "id"
    image_size: Count
    resize: Count
    image_mean: Channels
    image_std: Channels

    held_out: ClassVar[int] = 0  # training examples on the hub that are the validation split

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize < self.image_size:
            raise UserError(
                f"task.resize={self.resize}: must be at least task.image_size={self.image_size}, "
                "the size of the centre crop"
            )
        if 0 in self.image_std:
            raise UserError("task.image_std: must be greater than 0")

    @property
    def input_columns(self) -> tuple[str, ...]:
        return (self.image_column,)

    def load_file(self, file: Path) -> Dataset:
        """Load all examples of one file. Raises `UserError`."""
        from unipeft_run.data.images.reading import read_image_files
        from unipeft_run.data.images.source import check_tables
        from unipeft_run.data.tasks.split_files import SUFFIXES

        if not file.name.endswith(SUFFIXES):
            raise UserError(f"{file}: its name must end in one of {', '.join(SUFFIXES)}")
        return check_tables({"file": read_image_files([file], self.columns, None)})["file"]

    def encode(self, splits: Splits, tokenizer: Any, progress: Progress = no_progress) -> Splits:
        """Encode every split as pixels, labels and, if there are texts, token ids.

        Raises `UserError` for a damaged image, and for lengths that `tokenizer` does not allow.
        """
        from unipeft_run.data.images.encoding import encode_images

        return {
            name: encode_images(
                dataset,
                self.prepare,
                partial(self._encode_others, tokenizer=tokenizer),
                frames=self._most_frames,
                key=self._cache_key(tokenizer),
                description=f"encoding {name}",
                progress=progress,
            )
            for name, dataset in splits.items()
        }

    @abstractmethod
    def prepare(self, image: Image) -> Image:
        """Return the image as it is cached."""

    @abstractmethod
    def _encode_others(
        self, batch: Mapping[str, list[Any]], tokenizer: Any
    ) -> dict[str, list[Any]]:
        """Encode what is not an image: `labels`, `input_ids`."""

    @abstractmethod
    def _cache_key(self, tokenizer: Any) -> dict[str, Any]:
        """Return everything that the encoded examples depend on besides the examples."""

    @property
    def _most_frames(self) -> int | None:
        """The largest number of images of an example that are used; None for all."""
        return None

    @property
    def _source(self) -> ImageSource:
        return ImageSource(
            *(self.name, self.path, self.mini, self.hub),
            *(self.optional_splits, self.hub_splits, self.held_out),
        )
