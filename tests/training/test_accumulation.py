"""Gradient accumulation against one large batch, with both weightings of micro-batches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_text
import torch
from tiny_training import collate, make_loader, make_model, make_trainer
from torch import Tensor, nn

from unipeft_run.data.batching import IGNORED, BatchSampler, Collator, LengthBuckets
from unipeft_run.training import micro_batches
from unipeft_run.training.losses import SequenceLoss
from unipeft_run.training.micro_batches import MicroBatch, Weighting, micro_batch_weights
from unipeft_run.training.trainer import Trainer

CPU = torch.device("cpu")


def split(batch: Mapping[str, Tensor], sizes: list[int]) -> list[dict[str, Tensor]]:
    parts = {name: tensor.split(sizes) for name, tensor in batch.items()}
    return [{name: parts[name][i] for name in parts} for i in range(len(sizes))]


def train(folder: Path, batches: list[Any], weighting: Weighting = "equal") -> Trainer:
    """Train five updates, each on all of `batches`."""
    trainer = make_trainer(
        folder,
        model=make_model(dropout=0.0),
        loader=batches,
        accumulation=len(batches),
        accumulation_weighting=weighting,
        max_steps=5,
        evaluate=None,
    )
    trainer.fit()
    return trainer


def largest_difference(a: nn.Module, b: nn.Module) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


@pytest.mark.parametrize("weighting", ["equal", "targets"])
def test_equal_micro_batches_equal_one_large_batch(tmp_path: Path, weighting: Weighting) -> None:
    batch = collate([make_loader().dataset[i] for i in range(8)])
    large = train(tmp_path / "large", [batch])
    small = train(tmp_path / "small", split(batch, [2, 2, 2, 2]), weighting)
    assert largest_difference(large.model, small.model) < 1e-5


def test_unequal_micro_batches_equal_one_large_batch_only_if_weighted_by_targets(
    tmp_path: Path,
) -> None:
    batch = collate([make_loader().dataset[i] for i in range(8)])
    large = train(tmp_path / "large", [batch])
    parts = split(batch, [5, 1, 2])
    targets = train(tmp_path / "targets", parts, "targets")
    equal = train(tmp_path / "equal", parts)
    assert largest_difference(large.model, targets.model) < 1e-5
    assert largest_difference(large.model, equal.model) > 1e-3
    losses = [trainer.state.progress.total.loss for trainer in (large, targets)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def gradients_of(sizes: list[int], weighting: Weighting) -> dict[str, Tensor]:
    """Return the gradients of a text batch split into `sizes`, with unequal target counts."""
    rows = [{"input_ids": [5, 6, 2], "labels": [7, 8, 9, 2][n % 4 :]} for n in range(6)]
    batch = Collator(pad_token_id=1, decoder_start=2)(rows)
    parts = [MicroBatch(part) for part in split(batch, sizes)]
    model = tiny_text.bart(30).double().eval()
    for part, weight in zip(parts, micro_batch_weights(parts, weighting, CPU), strict=True):
        (SequenceLoss(0.1)(model, part.batch)[0] * weight / len(parts)).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_target_tokens_count_the_same_in_text() -> None:
    large = gradients_of([6], "targets")
    for name, gradient in gradients_of([1, 3, 2], "targets").items():
        assert torch.allclose(gradient, large[name], rtol=1e-9, atol=1e-12), name
    equal = gradients_of([1, 3, 2], "equal")
    assert any(not torch.allclose(equal[n], large[n], rtol=1e-3) for n in large)


def test_the_weights_of_one_process() -> None:
    def labels(*counts: int) -> MicroBatch:
        rows = torch.full((len(counts), 4), IGNORED)
        for row, count in zip(rows, counts, strict=True):
            row[:count] = 7
        return MicroBatch({"labels": rows})

    parts = [labels(1), labels(4, 1)]
    assert micro_batch_weights(parts, "equal", CPU) == [1.0, 1.0]
    assert micro_batch_weights(parts, "targets", CPU) == pytest.approx([1 / 3, 5 / 3])


@pytest.mark.parametrize("weighting", ["equal", "targets"])
def test_a_replicated_batch_counts_once(
    monkeypatch: pytest.MonkeyPatch, weighting: Weighting
) -> None:
    """Two ranks hold 2 + 4 targets, then both the same example of 3 targets."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    ranks = [[(2, 1), (3, 2)], [(4, 1), (3, 2)]]
    parts = [
        [MicroBatch({"labels": torch.zeros(count)}, copies) for count, copies in rank]
        for rank in ranks
    ]
    sums = [sum(column) for column in zip(*([m.targets for m in p] for p in parts), strict=True)]
    monkeypatch.setattr(micro_batches, "all_reduce_sum", lambda values, device: sums)
    weights = [micro_batch_weights(part, weighting, CPU) for part in parts]
    # each target's weight in the mean over ranks and micro-batches
    shares = [
        weight / count / 4
        for rank, given in zip(ranks, weights, strict=True)
        for (count, _), weight in zip(rank, given, strict=True)
    ]
    held_once, held_twice = shares[::2], [2 * share for share in shares[1::2]]
    expected = [1 / 9] * 4 if weighting == "targets" else [1 / 12, 1 / 12, 1 / 6, 1 / 6]
    assert [*held_once, *held_twice] == pytest.approx(expected)


def test_the_sampler_knows_which_batches_are_replicated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    sampler = BatchSampler(LengthBuckets(torch.arange(8).numpy()[:, None] + 1, 3, seed=1))
    for epoch in range(2):
        sizes = [len(batch) for batch in sampler.plan(epoch)]
        found = [sampler.is_replicated(epoch, n) for n in range(len(sizes))]
        assert found == [size < 3 for size in sizes] and True in found


def test_the_loss_counts_no_padding() -> None:
    assert MicroBatch({"labels": torch.tensor([[3, IGNORED], [4, 5]])}).targets == 3
    assert MicroBatch({"labels": torch.tensor([0, 1, 2])}, copies=2).targets == 1.5
