"""Encode new images, which have no labels, as a task encodes its own."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.Image import Image

from unipeft_run.data.images.encoding import PIXELS, SHAPE, count_threads, load_image
from unipeft_run.data.images.transforms import to_pixels

if TYPE_CHECKING:
    from unipeft_run.data.tasks.images import ImageTask


def encode_files(task: ImageTask, inputs: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """Return the encoded images of the files in `inputs`. Raises `UserError`."""
    (column,) = task.input_columns
    with ThreadPoolExecutor(count_threads()) as threads:
        loaded = threads.map(lambda name: load_image(_named(name), name), inputs[column])
        return [_encode(task.prepare(image)) for image in loaded]


def _named(name: str) -> dict[str, Any]:
    return {"bytes": None, "path": str(Path(name).expanduser())}


def _encode(image: Image) -> dict[str, Any]:
    pixels = np.stack([to_pixels(image)])
    return {PIXELS: pixels.tobytes(), SHAPE: list(pixels.shape[:3]), "labels": 0}
