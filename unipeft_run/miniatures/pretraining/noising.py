"""BART's text infilling (Lewis et al. 2020): replace spans by one mask each; predict the text."""

from __future__ import annotations

import numpy as np

MASKED = 0.35  # share of the tokens that is masked
MEAN_SPAN = 3.0  # span lengths are Poisson; a span of length 0 inserts a mask


def span_lengths(masked: int, rng: np.random.Generator) -> list[int]:
    """Draw Poisson lengths that sum to `masked`."""
    lengths: list[int] = []
    while (left := masked - sum(lengths)) > 0:
        lengths.append(min(int(rng.poisson(MEAN_SPAN)), left))
    return lengths


def infill(tokens: list[int], mask: int, rng: np.random.Generator) -> list[int]:
    """Mask a share `MASKED` of `tokens`; spans never touch, so each leaves its own mask."""
    lengths = span_lengths(round(MASKED * len(tokens)), rng)
    kept = len(tokens) - sum(lengths)
    gaps = np.sort(rng.choice(kept + 1, size=min(len(lengths), kept + 1), replace=False))
    noised: list[int] = []
    start = 0  # in `tokens`
    seen = 0  # unmasked tokens so far
    for gap, length in zip(gaps.tolist(), lengths, strict=False):
        noised += [*tokens[start : start + gap - seen], mask]
        start += gap - seen + length
        seen = gap
    return noised + tokens[start:]
