"""Tell videos apart by their images, in data without ids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from datasets import Dataset

from unipeft_run.data.images.encoding import BATCH
from unipeft_run.data.images.reading import IMAGES

_known: WeakKeyDictionary[Dataset, list[str]] = WeakKeyDictionary()  # an evaluation asks twice


def identify_videos(dataset: Dataset) -> list[str]:
    """Return a hash of each row's images: of their bytes, or of their paths if they have names."""
    if dataset not in _known:
        batches = dataset.select_columns([IMAGES]).iter(batch_size=BATCH)
        _known[dataset] = [_hash_images(images) for batch in batches for images in batch[IMAGES]]
    return _known[dataset]


def _hash_images(images: Sequence[Mapping[str, Any]]) -> str:
    digest = hashlib.sha256()
    for image in images:
        content = image["path"].encode() if image["bytes"] is None else image["bytes"]
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
