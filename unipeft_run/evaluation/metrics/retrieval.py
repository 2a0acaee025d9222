"""Retrieval metrics: recall at 1, 5 and 10, and the median rank, from texts to videos and back.

Shapes: T texts, V videos (or images), D features, n rows of a chunk.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unipeft_run.evaluation.metrics.scores import Scores, mean

if TYPE_CHECKING:  # not needed to check a configuration
    from numpy.typing import NDArray

RECALLS = (1, 5, 10)
DIRECTIONS = ("t2v", "v2t")
METRICS = tuple(
    f"{direction}_{name}"
    for direction in DIRECTIONS
    for name in (*(f"r{k}" for k in RECALLS), "median_rank")
)
LOWER = "median_rank"  # the end of the names of metrics that are better when lower
CHUNK = 2**22  # similarities at a time
TIES = "ties count against the right one"


@dataclass(frozen=True)
class Features:
    """Features of one split. `texts` [T, D] belongs to `videos` [V, D] by number in `owners` [T].

    Their similarity is the dot product.
    """

    texts: NDArray[Any]
    videos: NDArray[Any]
    owners: NDArray[Any]


def build_features(pairs: Sequence[tuple[Any, Any]], owners: Sequence[int]) -> Features:
    """Stack the features of every row's text and video; a video's are those of its first row."""
    import numpy as np

    numbers = np.asarray(owners)
    _, first = np.unique(numbers, return_index=True)
    texts, videos = (np.stack(side) for side in zip(*pairs, strict=True))
    return Features(texts, videos[first], numbers)


def retrieval(features: Features) -> Scores:
    """Compute the metrics of both directions; per example (text), 100 if its video ranks first.

    The rank of a text's video is one more than the number of other videos at least as similar. The
    rank of a video is that of its best text, among the texts of other videos.
    """
    ranks = {"t2v": text_ranks(features), "v2t": video_ranks(features)}
    metrics, signatures = {}, {}
    for direction, found in ranks.items():
        candidates = len(features.videos if direction == "t2v" else features.texts)
        for k in RECALLS:
            metrics[f"{direction}_r{k}"] = mean([100.0 * (rank <= k) for rank in found])
            chance = 100.0 * min(1.0, k / candidates)
            signatures[f"{direction}_r{k}"] = (
                f"recall at {k} (%), {len(found):,} queries, {candidates:,} candidates, {TIES}; "
                f"chance {chance:.2f}"
            )
        metrics[f"{direction}_median_rank"] = float(statistics.median(found))
        signatures[f"{direction}_median_rank"] = (
            f"median rank, lower is better, {candidates:,} candidates, {TIES}"
        )
    hits = [100.0 * (rank == 1) for rank in ranks["t2v"]]
    return Scores(metrics, hits, {**signatures, "per_example": signatures["t2v_r1"]})


def text_ranks(features: Features) -> list[int]:
    """Return the rank of every text's video, from 1."""
    import numpy as np

    ranks: list[int] = []
    for start, similar in _chunks(features.texts, features.videos):
        own = features.owners[start : start + len(similar), None]
        right = np.take_along_axis(similar, own, axis=1)
        ranks += (~(similar < right)).sum(axis=1).tolist()  # with the right one; NaN ranks last
    return ranks


def video_ranks(features: Features) -> list[int]:
    """Return the rank of every video's best text, from 1."""
    import numpy as np

    ranks: list[int] = []
    for start, similar in _chunks(features.videos, features.texts):
        numbers = np.arange(start, start + len(similar))[:, None]
        own = features.owners[None] == numbers
        right = np.where(own, similar, -np.inf).max(axis=1, keepdims=True)
        ranks += ((~(similar < right) & ~own).sum(axis=1) + 1).tolist()
    return ranks


def best_videos(features: Features) -> list[int]:
    """Return the number of the most similar video of every text, the first of equal ones."""
    found: list[int] = []
    for _, similar in _chunks(features.texts, features.videos):
        found += similar.argmax(axis=1).tolist()
    return found


def _chunks(queries: NDArray[Any], candidates: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the first query's number and the similarities [n, candidates] of a chunk of queries."""
    rows = max(1, CHUNK // len(candidates))
    for start in range(0, len(queries), rows):
        yield start, queries[start : start + rows] @ candidates.T
