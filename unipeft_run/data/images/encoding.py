"""The cache of decoded images: uint8 pixels in memory-mapped Arrow files, shared by all runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value
from PIL.Image import Image

from unipeft_run.data.encoding import TOKENS, Advance, cached, content_hash, digest
from unipeft_run.data.fingerprint import fingerprint_many
from unipeft_run.data.images.frames import choose_frames
from unipeft_run.data.images.reading import IMAGES
from unipeft_run.data.images.transforms import Pixels, decode_image, to_pixels
from unipeft_run.errors import UserError
from unipeft_run.tracking import Progress, no_progress

RECIPE = 3  # increment if the same images give different pixels than before
BATCH = 64  # examples in memory at a time
PIXELS, SHAPE = "pixels", "shape"  # columns: bytes, and [F, H, W] or [H, W]
Prepare = Callable[[Image], Image]
Columns = Callable[[Mapping[str, list[Any]]], Mapping[str, list[Any]]]


def encode_images(
    dataset: Dataset,
    prepare: Prepare,
    others: Columns,
    *,
    frames: int | None = None,
    key: Mapping[str, Any],
    description: str,
    progress: Progress = no_progress,
) -> Dataset:
    """Decode the column `images` of `dataset` and `prepare` every image.

    Columns: `pixels`, the bytes of uint8 values; `shape`, [F, H, W]; and those that `others`
    computes from a batch, `labels` and, for texts, `input_ids`. At most `frames` images of an
    example are kept. `key` holds everything that the result depends on besides the examples.
    Raises `UserError` for a damaged image and if the cache cannot be written.
    """
    recipe = json.dumps({**key, "frames": frames, "recipe": RECIPE}, sort_keys=True)
    name = digest(content_hash(dataset), _hash_named_images(dataset), recipe)

    def write(file: Path, advance: Advance) -> None:
        with ThreadPoolExecutor(count_threads()) as threads:
            writer = _Writer(prepare, others, frames, threads)
            writer.write(dataset, file, advance)

    return cached(name, write, len(dataset), description, progress)


def count_threads() -> int:
    """Return the number of threads that decode and resize; Pillow releases the interpreter lock."""
    return min(16, os.cpu_count() or 1)


def read_pixels(row: Mapping[str, Any]) -> Pixels:
    """Return the pixels of an encoded example, [F, H, W, 3]."""
    return np.frombuffer(row[PIXELS], dtype=np.uint8).reshape(*row[SHAPE], 3)


def load_image(image: Mapping[str, Any], where: str) -> Image:
    """Decode one entry of the column `images`. Raises `UserError`."""
    if image["bytes"] is not None:
        return decode_image(image["bytes"], where)
    try:
        return decode_image(Path(image["path"]).read_bytes(), image["path"])
    except OSError as error:
        raise UserError(f"{image['path']} cannot be read: {error.strerror}") from error


def _hash_named_images(dataset: Dataset) -> str:
    files = [
        Path(image["path"])
        for batch in dataset.select_columns([IMAGES]).iter(batch_size=BATCH)
        for images in batch[IMAGES]
        for image in images
        if image["path"] is not None
    ]
    return fingerprint_many(files) if files else ""


class _Writer:
    """Writes the encoded examples of one split to an Arrow file."""

    def __init__(
        self, prepare: Prepare, others: Columns, frames: int | None, threads: ThreadPoolExecutor
    ) -> None:
        self.prepare, self.others, self.frames, self.threads = prepare, others, frames, threads

    def write(self, dataset: Dataset, file: Path, advance: Advance) -> None:
        writer = None
        with pa.OSFile(str(file), "wb") as sink:
            for start in range(0, len(dataset), BATCH):
                columns = self._encode(dataset[start : start + BATCH], start)
                if writer is None:
                    schema = _schema(columns)
                    writer = pa.ipc.new_stream(sink, schema)
                arrays = [pa.array(columns[field.name], field.type) for field in schema]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
                advance(len(arrays[0]))
            if writer is not None:
                writer.close()

    def _encode(self, batch: Mapping[str, list[Any]], start: int) -> dict[str, list[Any]]:
        others = self.others(batch)
        rows = list(self.threads.map(self._load, enumerate(batch[IMAGES], start=start + 1)))
        return {
            PIXELS: [pixels.tobytes() for pixels in rows],
            SHAPE: [list(pixels.shape[:3]) for pixels in rows],
            **others,
        }

    def _load(self, numbered: tuple[int, Sequence[Mapping[str, Any]]]) -> Pixels:
        number, images = numbered
        kept = choose_frames(len(images), self.frames or len(images))
        loaded = [load_image(images[i], f"image {i + 1} of example {number}") for i in kept]
        return np.stack([to_pixels(self.prepare(image)) for image in loaded])


def _schema(columns: Mapping[str, list[Any]]) -> pa.Schema:
    types: dict[str, Any] = {
        PIXELS: Value("large_binary"),
        SHAPE: List(Value("int32")),
        "input_ids": TOKENS,
        "labels": Value("int64"),
    }
    return Features({name: types[name] for name in columns}).arrow_schema
