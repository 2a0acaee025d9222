"""Retrieval metrics against their definition, written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unipeft_run.evaluation.metrics import retrieval as module
from unipeft_run.evaluation.metrics.by_name import is_lower_better
from unipeft_run.evaluation.metrics.retrieval import (
    METRICS,
    Features,
    best_videos,
    build_features,
    retrieval,
    text_ranks,
    video_ranks,
)


def draw(texts: int, videos: int, seed: int) -> Features:
    """Draw features with few distinct values, so that there are ties."""
    random = np.random.default_rng(seed)
    owners = np.concatenate([np.arange(videos), random.integers(0, videos, texts - videos)])
    sides = (random.integers(-1, 2, (n, 4)).astype(np.float32) for n in (texts, videos))
    return Features(*sides, owners)


def ranks_by_definition(features: Features) -> tuple[list[int], list[int]]:
    similar = features.texts @ features.videos.T
    t2v = [
        1 + sum(row[v] >= row[own] for v in range(len(row)) if v != own)
        for row, own in zip(similar, features.owners, strict=True)
    ]
    v2t = []
    for video in range(len(features.videos)):
        own = [t for t in range(len(features.texts)) if features.owners[t] == video]
        best = max(similar[t, video] for t in own)
        others = [t for t in range(len(features.texts)) if t not in own]
        v2t.append(1 + sum(similar[t, video] >= best for t in others))
    return t2v, v2t


@pytest.mark.parametrize("chunk", [1, 50, 2**22])
@pytest.mark.parametrize("shape", [(9, 9), (20, 7)])
def test_ranks(shape: tuple[int, int], chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    for seed in range(5):
        features = draw(*shape, seed)
        assert (text_ranks(features), video_ranks(features)) == ranks_by_definition(features)


def test_equal_similarities_count_against_the_right_one() -> None:
    same = [(np.ones(2), np.ones(2))] * 5
    metrics = retrieval(build_features(same, range(5))).metrics
    assert metrics["t2v_r1"] == metrics["v2t_r1"] == 0.0
    assert metrics["t2v_r5"] == 100.0 and metrics["t2v_median_rank"] == 5.0


def test_perfect_features() -> None:
    eye = np.eye(12)
    scores = retrieval(build_features(list(zip(eye, eye, strict=True)), range(12)))
    assert tuple(scores.metrics) == METRICS
    assert scores.metrics["t2v_r1"] == 100.0 and scores.metrics["v2t_median_rank"] == 1.0
    assert scores.per_example == [100.0] * 12
    assert "12 candidates" in scores.signatures["t2v_r1"]
    assert "chance 8.33" in scores.signatures["t2v_r1"]


def test_recalls_are_percentages_of_the_queries() -> None:
    texts: Any = np.eye(4)[[0, 1, 2, 2]]
    metrics = retrieval(Features(texts, np.eye(4), np.arange(4))).metrics
    assert metrics["t2v_r1"] == 75.0
    assert best_videos(Features(texts, np.eye(4), np.arange(4))) == [0, 1, 2, 2]


def test_a_lower_median_rank_is_better() -> None:
    assert is_lower_better("test/t2v_median_rank") and not is_lower_better("test/t2v_r1")


def test_features_that_are_not_numbers_rank_last() -> None:
    features = draw(12, 6, 0)
    broken = Features(np.full_like(features.texts, np.nan), features.videos, features.owners)
    metrics = retrieval(broken).metrics
    assert (metrics["t2v_r1"], metrics["v2t_r1"]) == (0.0, 0.0)
    assert (metrics["t2v_r5"], metrics["t2v_median_rank"]) == (0.0, 6.0)
