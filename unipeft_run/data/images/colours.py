"""Trivial baselines that know the mean colour of an image and nothing else."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from unipeft_run.data.images.encoding import count_threads, load_image
from unipeft_run.data.images.reading import IMAGES
from unipeft_run.data.images.transforms import to_pixels

WORD = re.compile(r"\w+")


def mean_colours(dataset: Dataset) -> NDArray[np.float64]:
    """Return the mean red, green and blue, [N, 3], of every example's middle image."""
    with ThreadPoolExecutor(count_threads()) as threads:
        parts = [
            colour
            for batch in dataset.select_columns([IMAGES]).iter(batch_size=256)
            for colour in threads.map(_middle_colour, batch[IMAGES])
        ]
    return np.stack(parts)


def _middle_colour(images: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    pixels = to_pixels(load_image(images[len(images) // 2], "an image"))
    return pixels.reshape(-1, 3).mean(axis=0) / 255.0


def nearest_classes(train: Dataset, labels: Sequence[int], test: Dataset) -> list[int]:
    """Return the class whose mean colour in `train` is nearest, for every image of `test`."""
    colours, numbers = mean_colours(train), np.asarray(labels)
    classes = np.unique(numbers)
    centres = np.stack([colours[numbers == number].mean(axis=0) for number in classes])
    distances = np.linalg.norm(mean_colours(test)[:, None] - centres, axis=-1)
    return [int(number) for number in classes[distances.argmin(axis=1)]]


def word_colours(train: Dataset, test: Dataset, text: str) -> list[tuple[Any, Any]]:
    """Return features of every text and video of `test` whose dot products compare colours.

    A word's colour is the mean over the videos of `train` that it describes, and a text's colour
    the mean over its words. The dot product is minus the squared distance of text and video.
    """
    colours = mean_colours(train)
    seen: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for words, colour in zip(map(_words, train[text]), colours, strict=True):
        for word in words:
            seen[word].append(colour)
    by_word = {word: np.mean(found, axis=0) for word, found in seen.items()}
    overall = colours.mean(axis=0)
    pairs = []
    for words, video in zip(map(_words, test[text]), mean_colours(test), strict=True):
        known = [by_word[word] for word in sorted(words) if word in by_word]
        described = np.mean(known, axis=0) if known else overall
        pairs.append(_as_features(described, video))
    return pairs


def _as_features(text: NDArray[np.float64], video: NDArray[np.float64]) -> tuple[Any, Any]:
    """Return vectors whose dot product is -|text - video|^2."""
    return np.r_[2 * text, -(text @ text), -1.0], np.r_[video, 1.0, video @ video]


def _words(text: str) -> set[str]:
    return set(WORD.findall(text.lower()))
