"""The end of a benchmark: say what it ran on, and write its rows as JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch


def close(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Print threads, device and version; write `rows` to `options.json`, if given."""
    print(f"{torch.get_num_threads()} threads, {options.device}, torch {torch.__version__}")
    if options.json:
        options.json.write_text(json.dumps({**vars(options), "rows": rows}, default=str, indent=1))
