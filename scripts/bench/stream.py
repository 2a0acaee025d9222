"""An XSum-shaped stream of examples: random tokens, XSum's lengths, truncated."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset


def draw_lengths(count: int) -> tuple[Any, Any]:
    """Draw source and target lengths: medians 430 and 25 tokens, at most 512 and 60."""
    random = np.random.default_rng(0)
    sources = random.lognormal(np.log(430), 0.6, count).astype(int).clip(20, 512)
    targets = random.lognormal(np.log(25), 0.25, count).astype(int).clip(8, 60)
    return sources, targets


def build_stream(count: int, vocabulary: int) -> Dataset:
    """Return `count` encoded examples with `input_ids` and `labels`."""
    random = np.random.default_rng(1)
    sources, targets = (
        [[0, *random.integers(4, vocabulary, length - 2).tolist(), 2] for length in lengths]
        for lengths in draw_lengths(count)
    )
    return Dataset.from_dict({"input_ids": sources, "labels": targets})
