"""Group examples into batches, order the batches, and collate them into tensors.

Shapes: B examples, S source tokens and T target tokens, both rounded up to a multiple.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from unipeft_run.data.encoding import lengths
from unipeft_run.errors import UserError
from unipeft_run.training.distributed import processes

IGNORED = -100  # the label of padding
Batches = list[list[int]]
Collate = Callable[[Sequence[Any]], dict[str, Tensor]]  # with an attribute `multiple`, as Collator


@dataclass(frozen=True)
class Collator:
    """Pads rows into a batch of keyword arguments for a model.

    The batch holds `input_ids` and `attention_mask` [B, S], and either `labels` and
    `decoder_input_ids` [B, T] (text) or `labels` [B] (classes). `decoder_start` is the id that
    starts every decoder input (BART), "rotate" to start with the target's last token, its language
    code (mBART), or None without a decoder. Lengths are padded to multiples of `multiple`, because
    a few distinct shapes are faster than many, but not beyond `longest`, the backbone's positions.
    """

    pad_token_id: int
    decoder_start: int | Literal["rotate"] | None = None
    multiple: int = 8
    longest: int | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch = self.pad_sources([row["input_ids"] for row in rows])
        targets = [row["labels"] for row in rows]
        if self.decoder_start is None:
            return {**batch, "labels": torch.tensor(targets)}
        labels = self._pad(targets, IGNORED)
        decoder_input_ids = shift_right(labels, self.decoder_start, self.pad_token_id)
        return {**batch, "labels": labels, "decoder_input_ids": decoder_input_ids}

    def pad_sources(self, sources: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask` [B, S] of a batch without targets."""
        input_ids = self._pad(sources, self.pad_token_id)
        counts = torch.tensor([len(ids) for ids in sources])
        mask = torch.arange(input_ids.size(1)) < counts[:, None]
        return {"input_ids": input_ids, "attention_mask": mask.long()}

    def _pad(self, rows: Sequence[Sequence[int]], value: int) -> Tensor:
        needed = max(len(row) for row in rows)
        width = int(round_up(needed, self.multiple))
        if self.longest is not None:
            width = max(needed, min(width, self.longest))
        padded = torch.full((len(rows), width), value)
        for line, row in zip(padded, rows, strict=True):
            line[: len(row)] = torch.tensor(row)
        return padded


def shift_right(labels: Tensor, start: int | Literal["rotate"], pad_token_id: int) -> Tensor:
    """Shift `labels` [B, T] one position to the right, starting with `start`, as decoder inputs.

    "rotate" starts a row with its last token before the padding (mBART's language code). As in
    transformers, that token also stays in place, where its label is ignored.
    """
    tokens = labels.masked_fill(labels == IGNORED, pad_token_id)
    shifted = tokens.roll(1, dims=1)
    if start == "rotate":
        last = (labels != IGNORED).sum(dim=1, keepdim=True) - 1
        shifted[:, :1] = tokens.gather(1, last)
    else:
        shifted[:, 0] = start
    return shifted


def round_up(length: Any, multiple: int) -> Any:
    """Round a number or an array up to the next multiple of `multiple`."""
    return -(-length // multiple) * multiple


class BatchPlan(ABC):
    """The batches of every epoch, determined by the seed and the epoch's index alone."""

    @abstractmethod
    def __call__(self, epoch: int) -> Batches: ...

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches per epoch."""


@dataclass(frozen=True, eq=False)
class LengthBuckets(BatchPlan):
    """Batches of `batch_size` examples of similar length; every example once per epoch.

    Examples are shuffled and then sorted by length within pools of `pool` batches. Then the batches
    are shuffled, so they differ between epochs. `lengths` is [N, K]; its last column is the primary
    sort key.
    """

    lengths: NDArray[np.int64]
    batch_size: int
    seed: int
    pool: int = 50

    def __call__(self, epoch: int) -> Batches:
        random = np.random.default_rng([self.seed, epoch])
        order, size = random.permutation(len(self.lengths)), self.batch_size * self.pool
        batches: Batches = []
        for start in range(0, len(order), size):
            pool = order[start : start + size]
            pool = pool[np.lexsort(self.lengths[pool].T)]
            batches += [
                pool[i : i + self.batch_size].tolist() for i in range(0, len(pool), self.batch_size)
            ]
        return [batches[i] for i in random.permutation(len(batches))]

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)


class TokenBudget(BatchPlan):
    """Batches of about `max_tokens` padded tokens on the longer side.

    Follows fairseq's `batch_by_size`, as the official code does: examples are sorted by source
    length, longest first, and batches larger than `size_multiple` are cut to a multiple of it. As
    in fairseq, the examples cut off start the next batch without a check, so it can exceed
    `max_tokens` if a target is much longer than its source. The batches are the same in every
    epoch; their order changes. The very first batch is the largest, so that running out of memory
    shows at once. `lengths` [N, 2] holds the lengths of target and source.

    Raises `UserError` if a single example exceeds the budget.
    """

    def __init__(
        self, lengths: NDArray[np.int64], max_tokens: int, seed: int, size_multiple: int = 64
    ) -> None:
        longest = lengths.max(axis=1)
        if longest.max() > max_tokens:
            raise UserError(
                f"recipe.max_tokens={max_tokens} is less than the longest example, "
                f"which has {longest.max()} tokens"
            )
        order = np.argsort(-lengths[:, -1], kind="stable")
        self.batches = pack_batches(order.tolist(), longest, max_tokens, size_multiple)
        sizes = [len(batch) * longest[batch].max() for batch in self.batches]
        self.largest, self.seed = int(np.argmax(sizes)), seed

    def __call__(self, epoch: int) -> Batches:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.batches)).tolist()
        if epoch == 0:
            order.remove(self.largest)
            order.insert(0, self.largest)
        return [self.batches[i] for i in order]

    def __len__(self) -> int:
        return len(self.batches)


def pack_batches(
    order: list[int], size: NDArray[np.int64], max_tokens: int, multiple: int = 1
) -> Batches:
    """Group the examples of `order` into batches of at most `max_tokens`, padding included.

    `size` is the number of tokens of every example. See `TokenBudget` for `multiple`.
    """
    batches: Batches = []
    batch: list[int] = []
    longest = 0
    for index in order:
        longest = max(longest, int(size[index]))
        if batch and (len(batch) + 1) * longest > max_tokens:
            full = len(batch) // multiple * multiple or len(batch)
            batches.append(batch[:full])
            batch = batch[full:]
            longest = max(int(size[i]) for i in [*batch, index])
        batch.append(index)
    return [*batches, batch] if batch else batches


class BatchSampler(Sampler[list[int]]):
    """Yields the batches of `plan` from the current position to the end of the current epoch.

    Iterating counts the yielded batches and moves on to the next epoch at the end. A loader may
    prefetch, so a trainer keeps its own count and passes it to `load_state_dict` to resume. There
    is no `set_epoch`, because accelerate would call it with an epoch that restarts at 0 after a
    resume. With several processes, each one yields its part of every batch.
    """

    def __init__(self, plan: BatchPlan) -> None:
        self.plan, self.epoch, self.position = plan, 0, 0
        self._planned: tuple[int, Batches] | None = None

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches_of(self.epoch)[self.position :]:
            self.position += 1
            yield process_part(batch, processes.rank(), processes.world_size())
        self.epoch, self.position = self.epoch + 1, 0

    def __len__(self) -> int:
        return len(self.plan)

    def is_replicated(self, epoch: int, position: int) -> bool:
        """Return whether a batch is replicated, being smaller than the number of processes."""
        return len(self._batches_of(epoch)[position]) < processes.world_size()

    def _batches_of(self, epoch: int) -> Batches:
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, self.plan(epoch)
        return self._planned[1]

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


def process_part(batch: list[int], rank: int, count: int) -> list[int]:
    """Return the part of `batch` for process `rank` of `count`, each with similar lengths.

    A batch smaller than the number of processes is replicated; the mean is unchanged.
    """
    return batch[rank::count] if len(batch) >= count else batch


def train_loader(
    encoded: Dataset,
    collator: Collate,
    *,
    seed: int,
    batch_size: int | None = None,
    max_tokens: int | None = None,
) -> DataLoader[dict[str, Tensor]]:
    """Return a loader of batches of `batch_size` examples or of about `max_tokens` padded tokens.

    Raises `ValueError` unless exactly one of the two is given.
    """
    if (batch_size is None) == (max_tokens is None):
        raise ValueError("give exactly one of recipe.batch_size and recipe.max_tokens")
    by_side = _lengths_by_side(encoded)
    plan: BatchPlan
    if max_tokens is not None:
        plan = TokenBudget(by_side, max_tokens, seed)
    else:
        assert batch_size is not None
        plan = LengthBuckets(by_side, batch_size, seed)
    # without its own generator, each iterator would draw from the global one that dropout uses
    return DataLoader(
        encoded,
        batch_sampler=BatchSampler(plan),
        collate_fn=collator,
        generator=torch.Generator(),
    )


def _lengths_by_side(encoded: Dataset) -> NDArray[np.int64]:
    """Return the lengths of target and source, [N, 2], or of the source alone, [N, 1].

    Examples without token ids, such as pictures, count as 1.
    """
    sides = [name for name in ("labels", "input_ids") if _holds_lists(encoded, name)]
    if not sides:
        return np.ones((len(encoded), 1), dtype=np.int64)
    return np.stack([lengths(encoded, column) for column in sides], axis=1)


def _holds_lists(encoded: Dataset, column: str) -> bool:
    return hasattr(encoded.features.get(column), "feature")


def measure_padding(loader: DataLoader[Any]) -> float:
    """Return the fraction of padding in the first epoch of a `train_loader`."""
    sampler, collator = loader.batch_sampler, cast("Any", loader.collate_fn)
    assert isinstance(sampler, BatchSampler)
    encoded: Any = getattr(loader.dataset, "encoded", loader.dataset)
    return padding_fraction(encoded, sampler.plan(0), collator.multiple)


def padding_fraction(encoded: Dataset, batches: Batches, multiple: int) -> float:
    """Return the fraction of padding among all source and target positions of `batches`."""
    by_side = _lengths_by_side(encoded)
    padded = [len(b) * round_up(by_side[b].max(axis=0), multiple).sum() for b in batches]
    return 1.0 - float(sum(by_side[batch].sum() for batch in batches) / sum(padded))
