"""The decoding loop that greedy and beam search share.

Shape legend: B unfinished sources, K beams, L longest target, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from unipeft_run.evaluation.generation.decoder import Decoder
from unipeft_run.evaluation.generation.settings import Settings

CHECK_EVERY = {"cpu": 1}  # steps between checks for finished sources
CHECK_EVERY_ON_GPU = 8  # each check synchronises with the device
DROP_FINISHED_AT = 0.25  # finished fraction of the batch at which finished sources are removed


class Search(ABC):
    """One search over a batch of sources; `run` returns the targets, [all sources, T]."""

    def __init__(self, decoder: Decoder, settings: Settings) -> None:
        self.decoder, self.settings = decoder, settings
        self.device = decoder.device
        count, longest = decoder.sources, settings.max_length
        self.sources = torch.arange(count, device=self.device)  # rows of `targets`, [B]
        self.targets = torch.full((count, longest), settings.pad, device=self.device)
        self.targets[:, : settings.prompt] = decoder.prompts
        self.lengths = torch.full((count,), settings.prompt, device=self.device)
        self.done = torch.zeros(count, dtype=torch.bool, device=self.device)

    def run(self) -> Tensor:
        """Decode until every source is finished or `max_length` is reached."""
        every = CHECK_EVERY.get(self.device.type, CHECK_EVERY_ON_GPU)
        for length in range(self.settings.prompt, self.settings.max_length):
            self.advance(length)
            if length % every == 0 and self._all_finished():
                break
        self._write(torch.arange(len(self.sources), device=self.device))
        return self.targets[:, : int(self.lengths.max())]

    def _all_finished(self) -> bool:
        """Return whether all sources are done; if only many are, remove them from the batch."""
        count, size = int(self.done.sum()), len(self.done)
        if DROP_FINISHED_AT * size <= count < size:
            self._write(self.done.nonzero()[:, 0])
            self._keep((~self.done).nonzero()[:, 0])
        return count == size

    def _write(self, rows: Tensor) -> None:
        """Store the targets of the sources at `rows` of the batch."""
        targets, lengths = self.read(rows)
        self.targets[self.sources[rows]] = targets
        self.lengths[self.sources[rows]] = lengths

    def _keep(self, rows: Tensor) -> None:
        self.sources, self.done = self.sources[rows], self.done[rows]
        self.decoder.keep(rows)
        self.keep(rows)

    @abstractmethod
    def advance(self, length: int) -> None:
        """Extend targets of `length` tokens by one token and update `done`."""

    @abstractmethod
    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return targets, [rows, L], and their lengths, [rows]."""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Reduce the state to the sources at `rows`."""
