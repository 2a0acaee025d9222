"""The contrastive loss: CLIP's own, over frames, over processes, and of a whole split."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_vision
import torch
from torch import Tensor

from unipeft_run.training.contrastive import (
    ContrastiveLoss,
    encode_pairs,
    gather_pairs,
    logit_scale,
    mean_of_frames,
    split_loss,
)

VOCABULARY = 40


def batch(frames: list[int], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY - 1, (len(frames), 8), generator=generator)
    ids[:, -1] = VOCABULARY - 1
    size = (sum(frames), 3, tiny_vision.SIZE, tiny_vision.SIZE)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(size, generator=generator),
        "frames": torch.tensor(frames),
        "labels": torch.arange(len(frames)),
    }


def test_the_loss_of_single_images_is_clips_own() -> None:
    model, given = tiny_vision.clip(VOCABULARY), batch([1] * 5)
    loss, count = ContrastiveLoss()(model, given)
    inputs = {name: given[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    assert count == 5
    assert torch.allclose(loss, model(**inputs, return_loss=True).loss, rtol=1e-5)


def test_similarities_are_not_rounded_by_autocast() -> None:
    model, given = tiny_vision.clip(VOCABULARY), batch([1] * 5)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = ContrastiveLoss()(model, given)
        features = encode_pairs(model, given)
    owners = torch.arange(5)
    assert torch.allclose(
        loss, split_loss(*features, owners, scale=logit_scale(model), chunk=99), rtol=1e-6
    )


def test_a_video_is_the_mean_of_its_normalised_frames() -> None:
    features, frames = torch.randn(6, 4), torch.tensor([1, 3, 2])
    normal = features / features.norm(dim=-1, keepdim=True)
    means = torch.stack([part.mean(0) for part in normal.split([1, 3, 2])])
    expected = means / means.norm(dim=-1, keepdim=True)
    assert torch.allclose(mean_of_frames(features, frames), expected, atol=1e-6)


def test_gradients_reach_both_towers() -> None:
    model = tiny_vision.clip(VOCABULARY)
    ContrastiveLoss()(model, batch([2, 1, 3]))[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("chunk", [1, 2**20])
def test_the_loss_of_a_split_is_that_of_one_batch(chunk: int) -> None:
    model, given = tiny_vision.clip(VOCABULARY), batch([1, 2, 2, 1])
    texts, videos = encode_pairs(model, given)
    whole = split_loss(texts, videos, torch.arange(4), scale=logit_scale(model), chunk=chunk)
    assert torch.allclose(whole, ContrastiveLoss()(model, given)[0], rtol=1e-5)


def test_one_process_gathers_its_own_pairs() -> None:
    texts, videos = torch.randn(3, 2), torch.randn(3, 2)
    found = gather_pairs(texts, videos)
    assert found[0] is texts and found[1] is videos and found[2] == 0


CHILD = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_contrastive import VOCABULARY, batch, share
import tiny_vision
from unipeft_run.training.contrastive import ContrastiveLoss
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
model = tiny_vision.clip(VOCABULARY)
loss, count = ContrastiveLoss()(model, share(rank))
(loss * count * 2 / 5).backward()
for parameter in model.parameters():
    torch.distributed.all_reduce(parameter.grad)
    parameter.grad /= 2
if rank == 0:
    torch.save([p.grad for p in model.parameters()], sys.argv[2])
"""


def share(rank: int) -> dict[str, Tensor]:
    """Return the part of `batch([1, 2, 1, 3, 1])` that process `rank` of two has: 2 or 3 pairs."""
    whole = batch([1, 2, 1, 3, 1])
    pairs, images = ((slice(0, 2), slice(0, 3)), (slice(2, 5), slice(3, 8)))[rank]
    return {n: t[images if n == "pixel_values" else pairs] for n, t in whole.items()}


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent / "support"), str(here.parents[1])])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29541", "WORLD_SIZE": "2"}
    command = [sys.executable, "-c", CHILD, str(here), str(tmp_path / "gradients.pt")]
    children: list[Any] = [
        subprocess.Popen(
            command,
            env={**os.environ, **common, "RANK": str(rank), "PYTHONPATH": paths},
        )
        for rank in range(2)
    ]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    model = tiny_vision.clip(VOCABULARY)
    ContrastiveLoss()(model, batch([1, 2, 1, 3, 1]))[0].backward()
    found = torch.load(tmp_path / "gradients.pt")
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)
