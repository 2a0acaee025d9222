"""Warm up a GPU before a benchmark, and write its results."""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch.nn import functional as F


def warm_up(device: str) -> None:
    """Start the GPU's libraries, which would otherwise count for the first contender."""
    if device == "cuda":
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.ones(64, 64, device=device, dtype=dtype)
            F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None])
            (x @ x).softmax(dim=-1).sum().item()


def close(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Print threads, device and version, and write `rows`."""
    print(f"{torch.get_num_threads()} threads, {options.device}, torch {torch.__version__}")
    write(options, rows)


def write(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Write `rows` as JSON to `options.json`, if given."""
    if options.json:
        options.json.write_text(json.dumps({**vars(options), "rows": rows}, default=str, indent=1))
