"""Choose frames of a video."""

from __future__ import annotations


def choose_frames(count: int, most: int) -> list[int]:
    """Return `most` frame numbers evenly spread over `count` frames, the first and last included.

    All frames if there are no more than `most`. Positions are rounded down, as in CLIP4Clip.
    """
    if count <= most:
        return list(range(count))
    if most == 1:
        return [0]
    return [i * (count - 1) // (most - 1) for i in range(most)]
