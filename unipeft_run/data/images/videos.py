"""Tell videos apart by their images, in data without ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset

from unipeft_run.data.images.encoding import BATCH
from unipeft_run.data.images.reading import IMAGES


def identify_videos(dataset: Dataset) -> Iterator[str]:
    """Yield a hash of each row's images: of their bytes, or of their paths if they have names."""
    for batch in dataset.select_columns([IMAGES]).iter(batch_size=BATCH):
        yield from map(_hash_images, batch[IMAGES])


def _hash_images(images: Sequence[Mapping[str, Any]]) -> str:
    digest = hashlib.sha256()
    for image in images:
        content = image["path"].encode() if image["bytes"] is None else image["bytes"]
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
