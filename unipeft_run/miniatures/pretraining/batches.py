"""Batches of few, fixed shapes: a CPU's kernels are planned once per shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

Framed = tuple[list[int], list[int]]
Batch = dict[str, Tensor]

ROUND = 32  # lengths are rounded up to a multiple of this
ROWS = 8  # row counts are multiples of this


def rounded(length: int) -> int:
    return -(-length // ROUND) * ROUND


def rows_for(source: int, target: int, tokens: int) -> int:
    """Rows of a batch of at most `tokens` source and target positions, at least `ROWS`."""
    return max(ROWS, tokens // (source + target) // ROWS * ROWS)


def batches(examples: Iterable[Framed], tokens: int, pad: int) -> Iterator[Batch]:
    """A batch as soon as one shape has its rows; the others go on waiting."""
    waiting: dict[tuple[int, int], list[Framed]] = defaultdict(list)
    for source, target in examples:
        shape = rounded(len(source)), rounded(len(target))
        waiting[shape].append((source, target))
        if len(waiting[shape]) == rows_for(*shape, tokens):
            yield collate(waiting.pop(shape), shape, pad)


def collate(rows: list[Framed], shape: tuple[int, int], pad: int) -> Batch:
    sources = padded([source for source, _ in rows], shape[0], pad)
    labels = padded([target for _, target in rows], shape[1], -100)
    return {"input_ids": sources, "attention_mask": (sources != pad).long(), "labels": labels}


def padded(rows: list[list[int]], length: int, pad: int) -> Tensor:
    return torch.tensor([row + [pad] * (length - len(row)) for row in rows])


def in_order(examples: list[Framed], tokens: int, pad: int) -> list[Batch]:
    """Every example once, in batches of like shapes; for evaluation."""
    shaped: dict[tuple[int, int], list[Framed]] = defaultdict(list)
    for source, target in examples:
        shaped[rounded(len(source)), rounded(len(target))].append((source, target))
    made = []
    for shape, rows in sorted(shaped.items()):
        size = rows_for(*shape, tokens)
        made += [collate(rows[i : i + size], shape, pad) for i in range(0, len(rows), size)]
    return made
