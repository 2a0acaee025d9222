"""Compare training with PEFT and with the frozen backbone: one process, random weights.

    python scripts/bench/train.py --shape base --precision fp32
    python scripts/bench/train.py --shape large --precision bf16 --batch-size 16 --json train.json

Measures an update at a fixed shape, a pass over an XSum-shaped stream from examples to updates, the
time from the built model to the first update, and peak memory. The contenders take turns, and the
shortest time of several rounds counts. On a CPU, processor time is measured. The row
"matrix products" is a lower bound: the time of the matrix products of an update of MAM, if each ran
at the speed of one large product. Results are written after every round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from contenders import CONTENDERS, Batch, Contender, MamWithoutGraphs
from results import close, warm_up, write
from shapes import SHAPES
from stream import build_stream
from torch.utils.flop_counter import FlopCounterMode

from unipeft_run.data.batching import shift_right
from unipeft_run.training.progress import peak_memory_mib, reset_peak_memory

BASELINE = "PEFT LoRA FFN"
COLUMNS = ("first_update_s", "memory_mib", "update_s", "examples_per_s")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches per update")
    parser.add_argument("--source-tokens", type=int, default=512, help="of the fixed shape")
    parser.add_argument("--target-tokens", type=int, default=32, help="of the fixed shape")
    parser.add_argument("--examples", type=int, default=32, help="of the stream")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    if not options.contenders:
        options.contenders = list(CONTENDERS)[: None if options.device == "cuda" else -1]
    return options


def fixed_batch(options: argparse.Namespace) -> Batch:
    """Return a batch without padding."""
    generator, words = torch.Generator().manual_seed(0), SHAPES[options.shape]["vocab"]
    ids, labels = (
        torch.randint(4, words, (options.batch_size, length), generator=generator)
        for length in (options.source_tokens, options.target_tokens)
    )
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "decoder_input_ids": shift_right(labels, 2, 1),
    }


def build(name: str, options: argparse.Namespace) -> tuple[Contender, dict[str, Any]]:
    """Build a contender and make two updates; return it and its first measurements."""
    device = torch.device(options.device)
    reset_peak_memory()
    before = peak_memory_mib(device)
    contender = CONTENDERS[name](
        options.shape, options.precision, options.device, options.batch_size
    )
    batches = [fixed_batch(options)] * options.accumulation
    contender.choose_kernels()
    first = measure(partial(contender.update, batches), options.device)
    contender.update(batches)
    memory = peak_memory_mib(device) - before
    return contender, {"first_update_s": first, "memory_mib": memory}


def train_on_stream(contender: Contender, stream: Any, accumulation: int) -> None:
    """Make updates from one pass over `stream`."""
    batches = contender.batches(stream)
    while update := list(islice(batches, accumulation)):
        if len(update) == accumulation:
            contender.update(update)


def measure(function: Callable[[], object], device: str) -> float:
    """Return the seconds that `function` takes: processor time on a CPU, wall time on a GPU."""
    start = clock(device)
    function()
    return clock(device) - start


def clock(device: str) -> float:
    if device != "cuda":
        return time.process_time()  # other processes disturb it less
    torch.cuda.synchronize()
    return time.perf_counter()


def product_limit(options: argparse.Namespace) -> float:
    """Return the seconds of one update's matrix products at the speed of one large product."""
    size = options.shape, options.precision, options.device, options.batch_size
    contender = MamWithoutGraphs(*size)  # products inside a graph are not counted
    batches = [fixed_batch(options)] * options.accumulation
    contender.update(batches)  # the first update also times products
    with FlopCounterMode(display=False) as counter:
        contender.update(batches)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    size = 4096 if options.device == "cuda" else 1024
    a = torch.randn(size, size, device=options.device).to(dtype)
    seconds = min(measure(lambda: a @ a, options.device) for _ in range(5))
    return counter.get_total_flops() * seconds / (2 * size**3)


def run(options: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """Yield a row per contender after every round; finally also one for the matrix products."""
    stream = build_stream(options.examples, SHAPES[options.shape]["vocab"])
    warm_up(options.device)
    built = {name: build(name, options) for name in options.contenders}
    batches = [fixed_batch(options)] * options.accumulation
    rows: dict[str, dict[str, Any]] = {name: dict(first) for name, (_, first) in built.items()}
    for _ in range(options.rounds):
        for name, (contender, _) in built.items():
            contender.choose_kernels()
            update = measure(partial(contender.update, batches), options.device)
            pass_over = partial(train_on_stream, contender, stream, options.accumulation)
            passed = measure(pass_over, options.device)
            row = rows[name]
            row["update_s"] = min(update, row.get("update_s", update))
            speed = options.examples / passed
            row["examples_per_s"] = max(speed, row.get("examples_per_s", speed))
        table = [{"contender": name, **row} for name, row in rows.items()]
        yield table
    if "unipeft MAM" in built:
        built.clear()  # its memory is needed
        yield [*table, {"contender": "matrix products", "update_s": product_limit(options)}]


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the figures, and each contender's speed relative to PEFT's."""
    base = next((row for row in rows if row["contender"] == BASELINE), rows[0])
    print(f"{'':17}  first update  peak memory      update      x    stream       x")
    for row in rows:
        cells = [_cell(row, name) for name in COLUMNS]
        fixed = base["update_s"] / row["update_s"]
        has_stream = "examples_per_s" in row
        stream = f"{row['examples_per_s'] / base['examples_per_s']:.2f}" if has_stream else ""
        print(
            f"{row['contender']:17} {cells[0]:>10} s {cells[1]:>8} MiB {cells[2]:>9} s"
            f" {fixed:6.2f} {cells[3]:>7}/s {stream:>7}"
        )


def _cell(row: dict[str, Any], name: str) -> str:
    digits = {"memory_mib": 0, "update_s": 3}.get(name, 2)
    return f"{row[name]:.{digits}f}" if name in row else ""


def main() -> None:
    options = parse_arguments()
    for rows in run(options):
        write(options, rows)
    print_table(rows)
    close(options, rows)


if __name__ == "__main__":
    main()
