"""Batches of a few fixed shapes, because a CPU plans its kernels once per shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

Framed = tuple[list[int], list[int]]
Batch = dict[str, Tensor]

ROUND = 32  # lengths are rounded up to a multiple of this
ROWS = 8  # row counts are multiples of this


def round_up(length: int) -> int:
    return -(-length // ROUND) * ROUND


def count_rows(source: int, target: int, tokens: int) -> int:
    """Return the rows that fit into `tokens` source and target positions; at least `ROWS`."""
    return max(ROWS, tokens // (source + target) // ROWS * ROWS)


def make_batches(examples: Iterable[Framed], tokens: int, pad: int) -> Iterator[Batch]:
    """Yield a batch whenever enough examples of one shape have been collected."""
    waiting: dict[tuple[int, int], list[Framed]] = defaultdict(list)
    for source, target in examples:
        shape = round_up(len(source)), round_up(len(target))
        waiting[shape].append((source, target))
        if len(waiting[shape]) == count_rows(*shape, tokens):
            yield collate(waiting.pop(shape), shape, pad)


def collate(rows: list[Framed], shape: tuple[int, int], pad: int) -> Batch:
    sources = pad_rows([source for source, _ in rows], shape[0], pad)
    labels = pad_rows([target for _, target in rows], shape[1], -100)
    return {"input_ids": sources, "attention_mask": (sources != pad).long(), "labels": labels}


def pad_rows(rows: list[list[int]], length: int, pad: int) -> Tensor:
    return torch.tensor([row + [pad] * (length - len(row)) for row in rows])


def make_evaluation_batches(examples: list[Framed], tokens: int, pad: int) -> list[Batch]:
    """Batch every example exactly once, grouped by shape."""
    shaped: dict[tuple[int, int], list[Framed]] = defaultdict(list)
    for source, target in examples:
        shaped[round_up(len(source)), round_up(len(target))].append((source, target))
    made = []
    for shape, rows in sorted(shaped.items()):
        size = count_rows(*shape, tokens)
        made += [collate(rows[i : i + size], shape, pad) for i in range(0, len(rows), size)]
    return made
