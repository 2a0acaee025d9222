"""The micro-batches of an update, drawn in order, and their weights in its gradient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from unipeft_run.data.prefetch import Prefetched
from unipeft_run.errors import UserError
from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.parallel import all_reduce_sum
from unipeft_run.training.progress import Progress, count_targets
from unipeft_run.training.state import isolated_rng

Batch = Mapping[str, Tensor]
AHEAD = 8  # batches
Weighting = Literal["equal", "targets"]


@dataclass(frozen=True)
class MicroBatch:
    """This rank's part of a micro-batch; `copies`: the number of ranks that hold the same part."""

    batch: Batch
    copies: int = 1

    @property
    def targets(self) -> float:
        """This copy's share of the number of targets."""
        return count_targets(self.batch) / self.copies


def micro_batch_weights(
    micro_batches: Sequence[MicroBatch], weighting: Weighting, device: torch.device
) -> list[float]:
    """Return the factor of each micro-batch's mean loss, 1 on average over ranks and batches.

    "equal": every micro-batch counts the same, and its targets count the same on all ranks.
    "targets": every target of the update counts the same, as in one large batch.
    """
    counts = [micro_batch.targets for micro_batch in micro_batches]
    sums = all_reduce_sum(counts, device)
    if weighting == "targets":
        sums = [sum(sums) / len(sums)] * len(sums)
    size = processes.world_size()
    return [size * count / total for count, total in zip(counts, sums, strict=True)]


class MicroBatches:
    """An endless iterator over the micro-batches of `loader` that keeps `progress` up to date.

    The loader's `batch_sampler` takes `load_state_dict({"epoch": e, "position": p})`, with p the
    batches already consumed in epoch e; each iteration over the loader is one epoch. With several
    processes it also has `is_replicated(e, p)`: whether all ranks get that whole batch.
    """

    def __init__(self, loader: DataLoader[Any], progress: Progress, device: torch.device) -> None:
        self.loader, self.progress, self.device = loader, progress, device
        self._stream = self._iterate()

    def seek(self) -> None:
        """Move the loader to the position in `progress`."""
        position = {"epoch": self.progress.epoch, "position": self.progress.position}
        self.loader.batch_sampler.load_state_dict(position)  # type: ignore[union-attr]

    def draw(self, count: int) -> list[MicroBatch]:
        """Return the next `count` micro-batches."""
        # Creating an iterator draws from torch's random state, and a resumed run creates one more
        # than an uninterrupted run: this must not change the model's dropout.
        with isolated_rng(self.device):
            return [next(self._stream) for _ in range(count)]

    def _iterate(self) -> Iterator[MicroBatch]:
        progress = self.progress
        while True:
            for batch in self._read_epoch():
                copies = self._count_copies(progress.epoch, progress.position)
                progress.position += 1
                yield MicroBatch(batch, copies)
            if progress.position == 0:
                raise UserError("the training split is empty: there is nothing to train on")
            progress.epoch, progress.position = progress.epoch + 1, 0

    def _read_epoch(self) -> Iterable[Batch]:
        """Return the batches of an epoch; while a GPU computes, the next ones are collated."""
        return Prefetched(self.loader, AHEAD) if self.device.type == "cuda" else self.loader

    def _count_copies(self, epoch: int, position: int) -> int:
        size = processes.world_size()
        if size == 1:
            return 1
        sampler: Any = self.loader.batch_sampler
        return size if sampler.is_replicated(epoch, position) else 1
