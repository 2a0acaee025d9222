"""Greedy search: the most probable next token, the same under both sets of rules."""

from __future__ import annotations

import torch
from torch import Tensor

from unipeft_run.evaluation.generation.constraints import constrain, is_end
from unipeft_run.evaluation.generation.decoder import Decoder
from unipeft_run.evaluation.generation.search import Search
from unipeft_run.evaluation.generation.settings import Settings


class GreedySearch(Search):
    """Greedy search over a batch, with one beam per source; `tokens` is [B, 1, L]."""

    def __init__(self, decoder: Decoder, settings: Settings) -> None:
        super().__init__(decoder, settings)
        self.tokens = self.targets[:, None].clone()
        self.ends = torch.full_like(self.lengths, settings.max_length)

    def advance(self, length: int) -> None:
        seen = self.tokens[..., :length]
        visible = seen.new_ones((1, 1, 1, length - self.decoder.shared), dtype=torch.bool)
        scores = self.decoder(seen, visible.expand(len(seen), -1, -1, -1)).float()
        constrain(scores, seen, self.settings)
        token = scores.argmax(dim=-1)[:, 0].masked_fill(self.done, self.settings.pad)
        self.tokens[:, 0, length] = token
        if self.settings.eos:
            ended = is_end(token, self.settings.eos) & ~self.done
            self.ends.masked_fill_(ended, length + 1)
            self.done = self.done | ended

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.tokens[rows, 0], self.ends[rows]

    def keep(self, rows: Tensor) -> None:
        self.tokens, self.ends = self.tokens[rows], self.ends[rows]
