"""Batches of images: random transforms depend on seed, epoch and example alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_text
import torch
from tiny_vision import COLOURS, classes, pair_rows, pairs, write
from torch import Tensor

from unipeft_run.data.batching import Collator
from unipeft_run.data.images.batching import (
    ImageCollator,
    ImageTransform,
    PairCollator,
    ShuffledBatches,
    image_loader,
)

SETTINGS = (0.5, 0.5, 0.5)


@pytest.fixture
def encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    task = classes(path=write(tmp_path / "data", count=10))
    return task.encode(task.load(["train"]), None)["train"]


def collator(**settings: Any) -> ImageCollator:
    transform = ImageTransform(16, 16, **{"crop_scale": (0.3, 1.0), "flip": True, **settings})
    return ImageCollator(transform, SETTINGS, SETTINGS)


def by_example(encoded: Any, size: int, epoch: int, seed: int = 1) -> dict[int, Tensor]:
    """Return the transformed picture of each example, by its number."""
    loader = image_loader(encoded, collator(), seed=seed, batch_size=size)
    loader.batch_sampler.load_state_dict({"epoch": epoch, "position": 0})  # type: ignore[union-attr]
    order = [i for batch in loader.batch_sampler.plan(epoch) for i in batch]  # type: ignore[union-attr]
    pictures = torch.cat([batch["pixel_values"] for batch in loader])
    return dict(zip(order, pictures, strict=True))


def test_a_transform_depends_on_seed_epoch_and_example(encoded: Any) -> None:
    first = by_example(encoded, 4, epoch=2)
    other_batches = by_example(encoded, 3, epoch=2)
    assert first.keys() == other_batches.keys() == set(range(10))
    assert all(torch.equal(first[i], other_batches[i]) for i in first)
    for other in (by_example(encoded, 4, epoch=3), by_example(encoded, 4, epoch=2, seed=2)):
        assert not any(torch.equal(first[i], other[i]) for i in first)


def test_a_loader_resumes_within_an_epoch(encoded: Any) -> None:
    def read(position: int) -> list[dict[str, Tensor]]:
        loader = image_loader(encoded, collator(), seed=5, batch_size=4)
        loader.batch_sampler.load_state_dict({"epoch": 1, "position": position})  # type: ignore[union-attr]
        return list(loader)

    whole, rest = read(0), read(2)
    assert len(whole) == 3 and len(rest) == 1
    assert all(torch.equal(whole[2][name], rest[0][name]) for name in rest[0])


def test_evaluation_has_no_random_transform(encoded: Any) -> None:
    batch = collator()([encoded[0], encoded[1]])
    expected = np.stack([np.frombuffer(encoded[i]["pixels"], np.uint8) for i in (0, 1)])
    expected = expected.reshape(2, 16, 16, 3).transpose(0, 3, 1, 2) / 255.0
    assert np.allclose(batch["pixel_values"], (expected - 0.5) / 0.5, atol=1e-6)
    assert batch["labels"].tolist() == [0, 1]


def test_half_of_the_pictures_are_mirrored(encoded: Any) -> None:
    transform = ImageTransform(16, 16, None, flip=True)
    plain = transform(encoded[0])
    drawn = [transform({**encoded[0], "draw": [0, 0, i]}) for i in range(100)]
    mirrored = [np.array_equal(pixels, plain[:, :, ::-1]) for pixels in drawn]
    assert 30 < sum(mirrored) < 70
    assert all(m or np.array_equal(p, plain) for m, p in zip(mirrored, drawn, strict=True))


def test_full_batches_only() -> None:
    assert sorted(map(len, ShuffledBatches(10, 4, 0)(0))) == [2, 4, 4]
    assert list(map(len, ShuffledBatches(10, 4, 0, drop_last=True)(0))) == [4, 4]
    assert list(map(len, ShuffledBatches(3, 4, 0, drop_last=True)(0))) == [3]


def test_pairs_pack_the_frames_of_all_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    tokenizer = tiny_text.bart_tokenizer()
    task = pairs(path=write(tmp_path / "data", pair_rows, 3))
    rows = task.encode(task.load(["train"]), tokenizer)["train"]
    images = ImageCollator(ImageTransform(16, 16), SETTINGS, SETTINGS)
    batch = PairCollator(Collator(tokenizer.pad_token_id), images)(list(rows))
    assert batch["frames"].tolist() == [1, 2, 3]
    assert batch["pixel_values"].shape == (6, 3, 16, 16)
    assert batch["labels"].tolist() == [0, 1, 2]
    assert batch["input_ids"].size(1) % 8 == 0 and len(COLOURS) == 3
