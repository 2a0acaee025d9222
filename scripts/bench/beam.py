"""Compare `unipeft_run.generate` with transformers' `generate`: one process, random weights.

    python scripts/bench/beam.py --shape base --types fp32 bf16
    python scripts/bench/beam.py --shape mini --sources 16 --beams 4 --json beam.json
    python scripts/bench/beam.py --shape mini --family llama --types fp32

Both decode the same sources to the same length under the rules of transformers, alternately; the
shortest time of several repeats counts. The time of a step is the difference between two searches
of different length, divided by the difference in steps. On a CPU, processor time is measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from results import close
from shapes import FAMILIES, SHAPES, TYPES
from torch import Tensor

import unipeft_run
from unipeft_run.evaluation.generation import StepGraphs, can_record
from unipeft_run.training.precision import choose_kernels

SEARCHES = ("transformers", "unipeft")
SHORT = 20  # tokens of the shorter search


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--family", choices=FAMILIES, default="bart")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=list(TYPES))
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--beams", type=int, default=6)
    parser.add_argument("--source-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser.parse_args()


def search_with_transformers(model: Any, inputs: dict[str, Tensor], decoding: Any) -> Tensor:
    torch.backends.cuda.enable_cudnn_sdp(True)  # torch's own choice
    return model.generate(
        **inputs,
        **{name: value for name, value in decoding.items() if name != "forced_eos"},
        forced_eos_token_id=model.config.eos_token_id,
        do_sample=False,
    )


class Search:
    """unipeft's search. On a GPU, steps are recorded once for all searches, as in an evaluation."""

    def __init__(self) -> None:
        self.contexts = ExitStack()
        self.graphs: dict[int, StepGraphs] = {}  # by maximum length

    def __call__(self, model: Any, inputs: dict[str, Tensor], decoding: Any) -> Tensor:
        choose_kernels()
        longest = decoding["max_length"]
        if longest not in self.graphs and can_record(model):
            self.graphs[longest] = self.contexts.enter_context(StepGraphs(model))
        graphs = self.graphs.get(longest)
        return unipeft_run.generate(
            model, **inputs, decoding=decoding, rules="transformers", graphs=graphs
        )


def measure(options: argparse.Namespace, dtype: str) -> list[dict[str, Any]]:
    """Return a row per implementation: seconds per search, milliseconds per step, both ratios."""
    model = FAMILIES[options.family](options.shape, TYPES[dtype], options.device)
    shape = (options.sources, options.source_tokens)
    sources = torch.randint(5, model.config.vocab_size, shape, device=options.device)
    inputs = {"input_ids": sources, "attention_mask": torch.ones_like(sources)}
    search = Search()
    searches = dict(zip(SEARCHES, (search_with_transformers, search), strict=True))
    seconds: dict[tuple[str, int], float] = {}
    tokens: dict[str, Tensor] = {}
    warm = options.device == "cuda"  # a first round records steps, and is not timed
    for number in range(options.repeats + warm):  # alternately: both see the same machine load
        for name, function in searches.items():
            for length in (SHORT, options.new_tokens):
                spent, tokens[name] = time_search(function, model, inputs, length, options)
                if number >= warm:
                    seconds[name, length] = min(spent, seconds.get((name, length), spent))
    search.contexts.close()
    rows = [make_row(dtype, name, seconds, options.new_tokens) for name in SEARCHES]
    for row in rows:
        row["search_ratio"] = rows[0]["seconds"] / row["seconds"]
        row["step_ratio"] = rows[0]["step_ms"] / row["step_ms"]
        row["same_tokens"] = torch.equal(*tokens.values())
    return rows


def make_row(
    dtype: str, name: str, seconds: dict[tuple[str, int], float], length: int
) -> dict[str, Any]:
    step = (seconds[name, length] - seconds[name, SHORT]) / (length - SHORT)
    return {
        "type": dtype,
        "search": name,
        "seconds": seconds[name, length],
        "step_ms": 1000 * step,
    }


def time_search(
    search: Callable[..., Tensor],
    model: Any,
    inputs: dict[str, Tensor],
    new_tokens: int,
    options: argparse.Namespace,
) -> tuple[float, Tensor]:
    """Return the seconds of a search that generates exactly `new_tokens`, and its tokens."""
    given = options.source_tokens if options.family == "llama" else 1
    decoding = {
        "num_beams": options.beams,
        "max_length": new_tokens + given,
        "min_length": new_tokens + given,
        "no_repeat_ngram_size": 3,
        "early_stopping": True,
        "forced_eos": True,
    }
    start = clock()
    tokens = search(model, inputs, decoding)
    if options.device == "cuda":
        torch.cuda.synchronize()
    return clock() - start, tokens


def clock() -> float:
    """Return processor time on a CPU, which other processes disturb less; wall time on a GPU."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def print_table(rows: list[dict[str, Any]]) -> None:
    print("type  search         search (s)  step (ms)  search x  step x  same tokens")
    for row in rows:
        print(
            f"{row['type']:5} {row['search']:13} {row['seconds']:11.2f} {row['step_ms']:10.1f}"
            f" {row['search_ratio']:9.2f} {row['step_ratio']:7.2f}  {row['same_tokens']}"
        )


def main() -> None:
    options = parse_arguments()
    rows = [row for dtype in options.types for row in measure(options, dtype)]
    print_table(rows)
    close(options, rows)


if __name__ == "__main__":
    main()
