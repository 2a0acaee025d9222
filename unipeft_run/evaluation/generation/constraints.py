"""Constraints on the next token, applied in place to the scores of all tokens.

Shape legend: R rows of beams ([B, K]), V vocabulary, N n-gram size, t tokens so far.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unipeft_run.evaluation.generation.settings import Settings


def constrain(scores: Tensor, tokens: Tensor, settings: Settings) -> None:
    """Ban or force tokens in `scores` [*R, V] given `tokens` [*R, t], in transformers' order."""
    length = tokens.size(-1)
    ban_repeated_ngrams(scores, tokens, settings.no_repeat_ngram_size)
    if length < settings.min_length and settings.eos is not None:
        scores[..., settings.eos] = -math.inf
    if length == 1 and settings.forced_bos is not None:
        force_token(scores, settings.forced_bos)
    if length == settings.max_length - 1 and settings.forced_eos is not None:
        force_token(scores, settings.forced_eos)


def force_token(scores: Tensor, token: int) -> None:
    """Give `token` log-probability 0 and every other token minus infinity."""
    scores.fill_(-math.inf)
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
