"""Constraints on the next token, applied in place to the scores of all tokens.

Shape legend: R rows of beams ([B, K]), V vocabulary, N n-gram size, t tokens so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unipeft_run.evaluation.generation.settings import Settings


def constrain(scores: Tensor, tokens: Tensor, settings: Settings) -> None:
    """Ban or force tokens in `scores` [*R, V] given `tokens` [*R, t], in transformers' order."""
    length = tokens.size(-1)
    ban_repeated_ngrams(scores, tokens, settings.no_repeat_ngram_size)
    if length < settings.min_length:
        for token in settings.eos:
            scores[..., token] = -math.inf
    if length == 1 and settings.forced_bos is not None:
        force_tokens(scores, [settings.forced_bos])
    if length == settings.max_length - 1 and settings.forced_eos:
        force_tokens(scores, settings.forced_eos)


def force_tokens(scores: Tensor, tokens: Sequence[int]) -> None:
    """Give each of `tokens` log-probability 0 and every other token minus infinity."""
    scores.fill_(-math.inf)
    for token in tokens:  # an index by a list would be copied to the device
        scores[..., token] = 0


def ban_repeated_ngrams(scores: Tensor, tokens: Tensor, size: int) -> None:
    """Ban each token that would complete an n-gram of `size` tokens for the second time."""
    length = tokens.size(-1)
    if size == 0 or length < size:
        return
    windows = tokens.unfold(-1, size, 1)  # [*R, t - N + 1, N]
    suffix = tokens[..., None, length + 1 - size :]  # [*R, 1, N - 1]
    matches = (windows[..., :-1] == suffix).all(dim=-1)
    # take the minimum, because a token may end both a matching n-gram and another one
    bans = torch.where(matches, -math.inf, math.inf).to(scores.dtype)
    scores.scatter_reduce_(-1, windows[..., -1], bans, "amin")


def is_end(tokens: Tensor, eos: Sequence[int]) -> Tensor:
    """Return which of `tokens` are end tokens, with their shape."""
    ends = torch.zeros_like(tokens, dtype=torch.bool)
    for token in eos:  # not isin: its list would be copied to the device at every step
        ends |= tokens == token
    return ends
