"""Collation, batch plans, and loaders that resume."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import BartConfig, CLIPConfig, GPT2Config, RobertaConfig
from transformers.models.bart.modeling_bart import shift_tokens_right as bart_shift
from transformers.models.mbart.modeling_mbart import shift_tokens_right as mbart_shift

from unipeft_run.data.batching import (
    BatchSampler,
    Collator,
    LengthBuckets,
    TokenBudget,
    padding_fraction,
    shift_right,
    train_loader,
)
from unipeft_run.errors import UserError
from unipeft_run.task_types.registry import TASK_TYPES

# Tensors


def rows(*pairs: tuple[list[int], Any]) -> list[dict[str, Any]]:
    return [{"input_ids": source, "labels": target} for source, target in pairs]


def test_a_batch_is_padded_to_a_multiple() -> None:
    batch = Collator(pad_token_id=1, decoder_start=2, multiple=4)(
        rows(([5, 6, 7], [8, 9]), ([5, 6, 7, 8, 9], [4]))
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7, 1, 1, 1, 1, 1], [5, 6, 7, 8, 9, 1, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1] * 3 + [0] * 5, [1] * 5 + [0] * 3]
    assert batch["labels"].tolist() == [[8, 9, -100, -100], [4, -100, -100, -100]]
    assert batch["decoder_input_ids"].tolist() == [[2, 8, 9, 1], [2, 4, 1, 1]]


@pytest.mark.parametrize(("longest", "widths"), [(6, (4, 6)), (3, (3, 5)), (None, (4, 8))])
def test_padding_ends_at_the_positions(longest: int | None, widths: tuple[int, int]) -> None:
    collator = Collator(pad_token_id=1, multiple=4, longest=longest)
    sources = [[5, 6, 7], [5, 6, 7, 8, 9]]
    found = [collator.pad_sources([ids])["input_ids"].size(1) for ids in sources]
    assert tuple(found) == widths


TASK = SimpleNamespace(
    loss_on="all", image_size=16, image_mean=(0.5,) * 3, image_std=(0.5,) * 3, name="x"
)
TINY = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8}
CONFIGS: dict[str, Any] = {
    "seq2seq": BartConfig(max_position_embeddings=21),
    "classification": RobertaConfig(max_position_embeddings=23),
    "regression": RobertaConfig(max_position_embeddings=23),
    "causal": GPT2Config(n_positions=21),
    "retrieval": CLIPConfig(
        text_config={**TINY, "max_position_embeddings": 21},
        vision_config={**TINY, "image_size": 16, "patch_size": 8},
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_collators_know_the_positions_of_the_backbone(kind: str) -> None:
    tokenizer = SimpleNamespace(pad_token_id=1)
    collator = TASK_TYPES[kind].build_collator(cast("Any", TASK), tokenizer, CONFIGS[kind])
    texts = collator.texts if kind == "retrieval" else collator
    assert texts.pad_sources([[5] * 18])["input_ids"].size(1) == 21


def test_the_mask_follows_lengths_not_the_pad_id() -> None:
    batch = Collator(pad_token_id=1, multiple=1)(rows(([5, 1, 7], 0), ([5], 2)))
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [0, 2]
    assert set(batch) == {"input_ids", "attention_mask", "labels"}


def test_decoder_inputs_equal_those_of_transformers() -> None:
    labels = torch.tensor([[5, 6, 2, 90, -100], [7, 2, 90, -100, -100], [5, 6, 7, 2, 90]])
    padded = labels.masked_fill(labels == -100, 1)
    assert torch.equal(shift_right(labels, 2, 1), bart_shift(padded, 1, 2))
    assert torch.equal(shift_right(labels, "rotate", 1), mbart_shift(padded, 1))
    assert shift_right(labels, "rotate", 1)[:, 0].tolist() == [90, 90, 90]


# Order


def some_lengths(count: int, sides: int = 2) -> Any:
    return np.random.default_rng(0).integers(4, 60, size=(count, sides))


def plans() -> list[Any]:
    by = some_lengths(203)
    return [LengthBuckets(by, 8, seed=5, pool=4), TokenBudget(by, 300, seed=5, size_multiple=4)]


@pytest.mark.parametrize("plan", plans(), ids=["bucketed", "tokens"])
def test_every_epoch_has_every_example_once_in_a_new_order(plan: Any) -> None:
    epochs = [plan(epoch) for epoch in range(3)]
    for batches in epochs:
        assert sorted(index for batch in batches for index in batch) == list(range(203))
        assert len(batches) == len(plan)
    assert epochs[0] != epochs[1] != epochs[2]
    assert plan(1) == epochs[1]


def test_the_order_depends_on_the_seed() -> None:
    by = some_lengths(50)
    assert LengthBuckets(by, 8, seed=1)(0) != LengthBuckets(by, 8, seed=2)(0)
    assert LengthBuckets(by, 8, seed=1)(0) == LengthBuckets(by, 8, seed=1)(0)


def test_token_batches_respect_the_budget_and_start_with_the_largest() -> None:
    by = some_lengths(203)
    plan = TokenBudget(by, 300, seed=5, size_multiple=4)
    sizes = [len(batch) * by[batch].max() for batch in plan(0)]
    assert max(sizes) <= 300
    assert sizes[0] == max(sizes)
    assert np.mean(sizes) > 0.6 * 300
    assert {tuple(batch) for batch in plan(0)} == {tuple(batch) for batch in plan(1)}
    with pytest.raises(UserError, match=r"recipe.max_tokens=50 is less than .* 59"):
        TokenBudget(by, 50, seed=5)


def fairseq_batches(order: list[int], sizes: Any, max_tokens: int, multiple: int) -> list[Any]:
    """Reimplement fairseq's batch_by_size_fast line by line."""
    sample_len, sample_lens, batch, batches = 0, [], [], []
    for index in order:
        sample_lens.append(sizes[index])
        sample_len = max(sample_len, sizes[index])
        if len(batch) > 0 and (len(batch) + 1) * sample_len > max_tokens:
            mod_len = max(multiple * (len(batch) // multiple), len(batch) % multiple)
            batches.append(batch[:mod_len])
            batch = batch[mod_len:]
            sample_lens = sample_lens[mod_len:]
            sample_len = max(sample_lens) if len(sample_lens) > 0 else 0
        batch.append(index)
    return [*batches, batch] if batch else batches


@pytest.mark.parametrize("multiple", [1, 2, 4, 64])
@pytest.mark.parametrize("max_tokens", [60, 200, 300, 2000])
def test_token_batches_equal_those_of_fairseq(max_tokens: int, multiple: int) -> None:
    by = some_lengths(203)
    order = sorted(range(203), key=lambda index: -by[index, -1])
    expected = fairseq_batches(order, by.max(axis=1).tolist(), max_tokens, multiple)
    assert TokenBudget(by, max_tokens, seed=0, size_multiple=multiple).batches == expected


def encoded_pairs(count: int = 60) -> Dataset:
    by = some_lengths(count)
    return Dataset.from_dict(
        {"input_ids": [[9] * int(s) for _, s in by], "labels": [[8] * int(t) for t, _ in by]}
    )


def test_length_buckets_pad_less_than_random_batches() -> None:
    encoded = encoded_pairs()
    sampler = train_loader(encoded, Collator(1, 2), seed=1, batch_size=6).batch_sampler
    assert isinstance(sampler, BatchSampler)
    chance = np.random.default_rng(0).permutation(60).reshape(10, 6).tolist()
    assert padding_fraction(encoded, sampler.plan(0), 1) < 0.8 * padding_fraction(
        encoded, chance, 1
    )


def test_padding_fraction_equals_a_count_by_hand() -> None:
    encoded = Dataset.from_dict(
        {"input_ids": [[1] * 3, [1] * 5, [1] * 8], "labels": [[1], [1] * 2, [1] * 4]}
    )
    # sources 2 x 8 and 1 x 8, targets 2 x 4 and 1 x 4: 36 positions, of which 23 hold tokens
    assert padding_fraction(encoded, [[0, 1], [2]], 4) == pytest.approx(1 - 23 / 36)
    assert (
        padding_fraction(Dataset.from_dict({"input_ids": [[1, 1]], "labels": [0]}), [[0]], 4) == 0.5
    )


# Loaders


def first_sources(loader: Any) -> list[Any]:
    return [batch["input_ids"].tolist() for batch in loader]


def make_loader(**settings: Any) -> DataLoader[Any]:
    encoded = Dataset.from_dict(
        {
            "input_ids": [[9 + i] * (3 + i % 7) for i in range(40)],
            "labels": [[9 + i] * 3 for i in range(40)],
        }
    )
    return train_loader(encoded, Collator(1, 2), seed=3, **settings)


@pytest.mark.parametrize("settings", [{"batch_size": 4}, {"max_tokens": 30}])
def test_a_loader_resumes_at_its_position(settings: dict[str, int]) -> None:
    whole = make_loader(**settings)
    first, second = first_sources(whole), first_sources(whole)
    assert first != second
    assert len(first) == len(whole)
    part = make_loader(**settings)
    part.batch_sampler.load_state_dict({"epoch": 0, "position": 3})  # type: ignore[union-attr]
    assert first_sources(part) == first[3:]
    assert part.batch_sampler.state_dict() == {"epoch": 1, "position": 0}  # type: ignore[union-attr]
    assert first_sources(part) == second


def test_the_position_counts_yielded_batches() -> None:
    sampler = BatchSampler(LengthBuckets(some_lengths(40), 4, seed=0))
    batches = iter(sampler)
    next(batches), next(batches)
    assert sampler.state_dict() == {"epoch": 0, "position": 2}


def test_accelerate_changes_neither_batches_nor_order() -> None:
    plain, prepared = make_loader(batch_size=4), make_loader(batch_size=4)
    prepared.batch_sampler.load_state_dict({"epoch": 4, "position": 2})  # type: ignore[union-attr]
    plain.batch_sampler.load_state_dict({"epoch": 4, "position": 2})  # type: ignore[union-attr]
    loader = Accelerator(cpu=True).prepare_data_loader(prepared)
    for _ in range(2):
        assert first_sources(loader) == first_sources(plain)


def test_iterating_does_not_use_the_global_random_state() -> None:
    before = torch.get_rng_state()
    first_sources(make_loader(batch_size=4))
    assert torch.equal(torch.get_rng_state(), before)


def test_exactly_one_batch_size_is_required() -> None:
    for settings in ({}, {"batch_size": 2, "max_tokens": 100}):
        with pytest.raises(
            ValueError, match=r"exactly one of recipe.batch_size and recipe.max_tokens"
        ):
            make_loader(**settings)
