"""Open beams, and the candidates that extend them.

Shape legend: B sources, K beams, L longest target, n tokens so far, V vocabulary, M candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """Extensions of beams by one token, [B, M] each; `scores` are summed log-probabilities."""

    scores: Tensor
    parents: Tensor
    tokens: Tensor

    @classmethod
    def find_best(cls, totals: Tensor, count: int) -> Candidates:
        """Return the `count` best extensions of each source by their `totals`, [B, K, V]."""
        scores, places = totals.flatten(1).topk(count, dim=1)
        vocabulary = totals.size(-1)
        return cls(scores, places // vocabulary, places % vocabulary)

    def take(self, index: Tensor) -> Candidates:
        """Return the candidates at `index`, [B, M']."""
        fields = (field.gather(1, index) for field in (self.scores, self.parents, self.tokens))
        return Candidates(*fields)


class Beams:
    """The K open beams of each source.

    Attributes:
        tokens: [B, K, L], padded after the last token.
        ancestry: [B, K, L], the beam index of beam k's ancestor at each position. Keys and values
            are never reordered in the cache; this table yields the attention mask.
        shared: the first positions, whose keys and values all beams of a source share.
        scores: summed log-probabilities, [B, K]. All but the first start at -1e9, so that the first
            step does not select one token K times.
    """

    def __init__(self, first: Tensor, num_beams: int, dtype: torch.dtype, shared: int = 0) -> None:
        self.shared = shared
        self.tokens = first[:, None].repeat(1, num_beams, 1)
        self.ancestry = torch.zeros_like(self.tokens)
        self.indices = torch.arange(num_beams, device=first.device)
        self.scores = torch.zeros(len(first), num_beams, dtype=dtype, device=first.device)
        self.scores[:, 1:] = -1e9

    def find_visible(self, length: int) -> Tensor:
        """Return the mask of the positions each beam descends from, [B, 1, K, (n - shared) K]."""
        self.ancestry[:, :, length - 1] = self.indices
        mask = self.ancestry[:, :, self.shared : length, None] == self.indices
        return mask.flatten(2)[:, None]

    def extend(self, chosen: Candidates, length: int) -> None:
        """Replace the beams of `length` tokens by their `chosen` extensions, [B, K]."""
        self.scores = chosen.scores
        self.tokens = take_beams(self.tokens, chosen.parents)
        self.tokens[:, :, length] = chosen.tokens
        self.ancestry = take_beams(self.ancestry, chosen.parents)

    def keep(self, rows: Tensor) -> None:
        """Reduce the batch to the sources at `rows`."""
        self.tokens, self.ancestry = self.tokens[rows], self.ancestry[rows]
        self.scores = self.scores[rows]


def take_beams(tensor: Tensor, index: Tensor) -> Tensor:
    """Select beams of `tensor` [B, K, L] at `index` [B, M]: [B, M, L]."""
    return tensor.gather(1, index[..., None].expand(-1, -1, tensor.size(-1)))
