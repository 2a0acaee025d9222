"""Batches of images: random transforms of training, normalisation, collation.

Shapes: B examples, N images (all frames of all examples), C = 3 channels, H = W = the image size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from unipeft_run.data.batching import Batches, BatchPlan, BatchSampler, Collator
from unipeft_run.data.images.encoding import count_threads, read_pixels
from unipeft_run.data.images.transforms import (
    Pixels,
    flip,
    from_pixels,
    random_resized_crop,
    resize_and_crop,
    to_pixels,
)

DRAW = "draw"  # of a training example: what seeds its random transform
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ImageTransform:
    """From the cached pixels of an example to the pixels that the model sees.

    Training examples, which have a `draw`, are cropped at random to a share of their area between
    `crop_scale`, and mirrored with probability 1/2 if `flip`. Without `crop_scale`, and in
    evaluation, the shorter side is resized to `resize` and a centre crop is taken.
    """

    size: int
    resize: int
    crop_scale: tuple[float, float] | None = None
    flip: bool = False

    def __call__(self, row: Mapping[str, Any]) -> Pixels:
        """Return the pixels of all frames, [F, H, W, 3]."""
        frames, draw = read_pixels(row), row.get(DRAW)
        if draw is None:
            return np.stack([self._centre(frame) for frame in frames])
        random = np.random.default_rng(draw)
        cropped = np.stack([self._crop(frame, random) for frame in frames])
        return flip(cropped) if self.flip and random.random() < 0.5 else cropped

    def _crop(self, frame: Pixels, random: np.random.Generator) -> Pixels:
        if self.crop_scale is None:
            return self._centre(frame)
        image = random_resized_crop(from_pixels(frame), self.size, self.crop_scale, random)
        return to_pixels(image)

    def _centre(self, frame: Pixels) -> Pixels:
        if frame.shape[:2] == (self.size, self.size) and self.resize == self.size:
            return frame
        return to_pixels(resize_and_crop(from_pixels(frame), self.resize, self.size))


@dataclass(frozen=True)
class ImageCollator:
    """Collates encoded images into `pixel_values` [N, C, H, W] and `labels` [B].

    Pixels are scaled to 0-1, and `mean` and `std` of each channel normalise them.
    """

    transform: Callable[[Mapping[str, Any]], Pixels]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def multiple(self) -> int:
        """Images have one size, without padding."""
        return 1

    def __call__(self, rows: Rows) -> dict[str, Tensor]:
        labels = torch.tensor([row["labels"] for row in rows])
        return {"pixel_values": self.normalise(self.transform_all(rows)), "labels": labels}

    def transform_all(self, rows: Rows) -> list[Pixels]:
        """Return the transformed pixels of every example, [F, H, W, 3] each."""
        return list(_threads().map(self.transform, rows))

    def normalise(self, pixels: Sequence[Pixels]) -> Tensor:
        """Return all images as one tensor [N, C, H, W]."""
        images = torch.from_numpy(np.concatenate(pixels)).permute(0, 3, 1, 2).contiguous()
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))
        return images.float().div_(255.0).sub_(mean).div_(std)


@dataclass(frozen=True)
class PairCollator:
    """Collates pairs of a text and a video.

    The batch holds `input_ids` and `attention_mask` [B, S], `pixel_values` [N, C, H, W] of all
    frames, `frames` [B], the number of frames of each video, and `labels` [B], the text's video.
    """

    texts: Collator
    images: ImageCollator

    @property
    def multiple(self) -> int:
        """The multiple to which the lengths of texts are padded."""
        return self.texts.multiple

    def __call__(self, rows: Rows) -> dict[str, Tensor]:
        pixels = self.images.transform_all(rows)
        return {
            **self.texts.pad_sources([row["input_ids"] for row in rows]),
            "pixel_values": self.images.normalise(pixels),
            "frames": torch.tensor([len(frames) for frames in pixels]),
            "labels": torch.arange(len(rows)),
        }


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count_threads(), thread_name_prefix="transform-images")


@dataclass(frozen=True)
class ShuffledBatches(BatchPlan):
    """Batches of `batch_size` of `count` examples in random order; `drop_last`: full ones only."""

    count: int
    batch_size: int
    seed: int
    drop_last: bool = False

    def __call__(self, epoch: int) -> Batches:
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count).tolist()
        size = self.batch_size
        return [order[i * size : (i + 1) * size] for i in range(len(self))]

    def __len__(self) -> int:
        full = self.count // self.batch_size
        return full if self.drop_last and full else -(-self.count // self.batch_size)


class DrawSampler(BatchSampler):
    """A `BatchSampler` that yields example numbers together with the epoch."""

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            yield [(self.epoch, index) for index in batch]


class DrawnExamples(TorchDataset[dict[str, Any]]):
    """Encoded examples, each with what seeds its random transform: run's seed, epoch and number.

    The transform therefore depends neither on the order of the examples nor on the process that
    computes it, and a resumed run repeats it.
    """

    def __init__(self, encoded: Dataset, seed: int) -> None:
        self.encoded, self.seed = encoded, seed

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        epoch, index = place
        return {**self.encoded[index], DRAW: [self.seed, epoch, index]}


def image_loader(
    encoded: Dataset,
    collator: Callable[[Rows], dict[str, Tensor]],
    *,
    seed: int,
    batch_size: int,
    drop_last: bool = False,
) -> DataLoader[dict[str, Tensor]]:
    """Return a loader of random batches of `batch_size` training examples."""
    plan = ShuffledBatches(len(encoded), batch_size, seed, drop_last)
    return DataLoader(
        DrawnExamples(encoded, seed),
        batch_sampler=DrawSampler(plan),
        collate_fn=collator,  # type: ignore[arg-type]
        generator=torch.Generator(),  # see `train_loader`
    )


def frame_counts(encoded: Dataset) -> NDArray[np.int64]:
    """Return the number of frames of every example."""
    shapes = encoded.select_columns(["shape"])[:]["shape"]
    return np.asarray([shape[0] for shape in shapes], dtype=np.int64)
